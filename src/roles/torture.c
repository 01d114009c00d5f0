/* SPDX-License-Identifier: Apache-2.0 */
/* A worker for tests: every few milliseconds its session is frozen and goes on in a fresh process.
 *
 * The process that the zygote forks only keeps the books: it holds the channel and a memfd with the frozen session,
 * and starts one process after the other. Each maps the image, thaws what the last one left, runs until the timer
 * comes, freezes and ends. Whatever the session needs and does not take along shows as a wrong result. There is no
 * jail: freezing reads /proc. Linked into codemode-torture only, in the place of the real start.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "guest/engine.h"
#include "image/freeze.h"
#include "jail/jail.h"
#include "roles/worker.h"
#include "roles/zygote.h"

/* A session of hundreds of megabytes takes longer to freeze than it would run. So it runs for at least a part of
 * that time; the timer knows less than a second. */
enum { EVERY_US = 5000, EVERY_MAX_US = 900000, PART = 8, FROZEN = 77 };

/* Beside the frozen session, in memory that the processes share. */
struct book {
    uint64_t id;   /* of the execution that was frozen, 0: none */
    bool frozen;
    unsigned freezes;
    uint64_t left_ns; /* when the session began to leave its last process */
};

static struct book *book;
static const struct cm_image *image;
static int frozen_fd = -1;
static volatile pid_t child;

static _Noreturn void die(const struct cm_err *err)
{
    dprintf(STDERR_FILENO, "codemode-torture: %s\n", err->text);
    _exit(1);
}

/* The proof that the test took place. At powers of two: the end of a session comes without notice. */
static void report(void)
{
    if (!(book->freezes & (book->freezes - 1)))
        dprintf(STDERR_FILENO, "codemode-torture: %d frozen %u times\n", (int)getpid(), book->freezes);
}

/* At every wait of the guest: the moment to leave the process. */
static void on_wait(uint64_t id)
{
    struct cm_err err;
    if (!cm_guest_stopping())
        return;
    book->id = id;
    book->left_ns = cm_clock_ns();
    if (cm_image_freeze(frozen_fd, image, &err))
        die(&err);
    book->frozen = true;
    book->freezes++;
    _exit(FROZEN);
}

static void forward(int signal)
{
    if (child > 0)
        kill(child, signal);
}

static unsigned stop_after_us(void)
{
    uint64_t us = book->frozen ? (cm_clock_ns() - book->left_ns) / 1000 / PART : 0;
    return us < EVERY_US ? EVERY_US : us > EVERY_MAX_US ? EVERY_MAX_US : (unsigned)us;
}

static _Noreturn void run_one(uint64_t memory_limit)
{
    struct cm_err err;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (cm_worker_signals(&err) || cm_image_map(image, memory_limit, &err) ||
        (book->frozen && cm_image_thaw(frozen_fd, &err)))
        die(&err);
    cm_worker_serve(&(struct cm_worker_life){
        .thawed = book->frozen, .id = book->id, .on_wait = on_wait, .stop_every_us = stop_after_us()});
}

int cm_zygote_confine(const struct cm_sandbox_args *args, pid_t gateway, uint32_t *ret_layers, struct cm_err *err)
{
    (void)args;
    *ret_layers = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return getppid() == gateway ? 0 : cm_err_set(err, CM_ERR_SANDBOX, "the gateway is gone");
}

_Noreturn void cm_worker_main(int channel, pid_t gateway, const struct cm_image *i)
{
    struct cm_err err;
    struct cm_worker_orders orders;
    struct sigaction act = {.sa_handler = forward, .sa_flags = SA_RESTART};
    image = i;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    book = mmap(NULL, sizeof *book, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    frozen_fd = memfd_create("frozen", MFD_CLOEXEC);
    if (book == MAP_FAILED || frozen_fd < 0 || getppid() != gateway || cm_worker_begin(channel, &orders, &err) ||
        dup2(channel, CM_JAIL_CHANNEL) < 0)
        _exit(1);
    close(channel);
    close(orders.checkpoint); /* its sessions are frozen, not saved */
    sigaction(SIGUSR1, &act, NULL);
    for (;;) {
        int status;
        child = fork();
        if (child == 0)
            run_one(orders.memory_limit);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != FROZEN)
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        report();
    }
}
