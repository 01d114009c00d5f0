/* SPDX-License-Identifier: Apache-2.0 */
/* `codemode-sandbox --check`: the same calls as in earnest, in children that end afterwards. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "guest/engine.h"
#include "guest/layout.h"
#include "image/image.h"
#include "roles/worker.h"
#include "roles/zygote.h"

#define DONE "done "

static void say_layers(const struct cm_jail_plan *plan)
{
    for (int i = 0; i < CM_LAYER_COUNT; i++) {
        const char *name = cm_layer_info((enum cm_layer)i)->name;
        if (plan->on >> i & 1)
            printf("layer\t%s\ton\n", name);
        else
            printf("layer\t%s\toff\t%s\n", name, plan->why_off[i]);
    }
}

static int fail(const struct cm_err *err)
{
    printf("error\t%s\n", err->text);
    return 1;
}

/* The pipe to us stands where the channels of a zygote and then of a worker do: there the filters allow a word. */
static _Noreturn void put_on(const struct cm_jail_plan *plan, pid_t parent, int to)
{
    struct cm_err err;
    const struct cm_jail_worker w = {
        .parent = parent, .fds = {CM_ZYGOTE_CHANNEL}, .fd_count = 1, .data_max = CM_MEMORY_RESERVED};
    if (dup2(to, CM_ZYGOTE_CHANNEL) < 0)
        _exit(2);
    int rc = cm_jail_zygote(plan, parent, &err);
    uint64_t begun = cm_clock_ns();
    if (!rc && !cm_jail_worker(plan, &w, &err)) {
        char word[40];
        int n = snprintf(word, sizeof word, DONE "%llu", (unsigned long long)(cm_clock_ns() - begun));
        _exit(write(CM_JAIL_CHANNEL, word, (size_t)n) < 0);
    }
    size_t len = strlen(err.text);
    if (write(CM_ZYGOTE_CHANNEL, err.text, len) < 0 && write(CM_JAIL_CHANNEL, err.text, len) < 0)
        _exit(2);
    _exit(1);
}

/* Zygote and worker in one child: the jail of the one stands in that of the other anyway. */
static int try_jail(const struct cm_jail_plan *plan, char ret_ns[static 32], struct cm_err *err)
{
    char word[CM_ERR_TEXT_MAX];
    int words[2], status = 0;
    pid_t self = getpid();
    if (pipe(words))
        return cm_err_sys(err, errno, "pipe");
    pid_t child = fork();
    if (child == 0)
        put_on(plan, self, words[1]);
    close(words[1]);
    ssize_t n = child > 0 ? read(words[0], word, sizeof word - 1) : -1;
    close(words[0]);
    if (child > 0)
        waitpid(child, &status, 0);
    if (n > 0) {
        word[n] = '\0';
        if (strncmp(word, DONE, strlen(DONE)) != 0)
            return cm_err_set(err, CM_ERR_SANDBOX, "%s", word);
        snprintf(ret_ns, 32, "%.31s", word + strlen(DONE));
        return 0;
    }
    return cm_err_set(err, CM_ERR_SANDBOX, "a process that tried the jail ended with status %#x", (unsigned)status);
}

int cm_sandbox_check(const struct cm_sandbox_args *args)
{
    struct cm_err err;
    struct cm_image image;
    struct cm_jail_plan plan;
    int rc = cm_jail_plan(&args->layers, args->uid, &plan, &err);
    say_layers(&plan);
    if (!rc)
        rc = cm_guest_reserve(&cm_worker_ops, &err);
    if (!rc)
        rc = cm_image_load(args->image, &image, &err);
    if (rc)
        return fail(&err);
    printf("image\t%s\n", image.id);
    fflush(stdout);
    char ns[32];
    if (try_jail(&plan, ns, &err))
        return fail(&err);
    printf("jail\t%s\nfit\n", ns);
    return 0;
}
