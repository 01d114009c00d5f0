/* SPDX-License-Identifier: Apache-2.0 */
/* Each layer of the jail alone: what it keeps from a process when all the others are off. And the lists of layers, and
 * the control group. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "jail/cgroup.h"
#include "jail/jail.h"

enum { HELD = 42, NOT_JAILED = 43 };

static struct cm_jail_plan machine; /* what this one allows */

/* The plan with these layers only, 1 << enum cm_layer each. */
static struct cm_jail_plan only(uint32_t layers)
{
    struct cm_jail_plan p = machine;
    assert_int_equal(p.on & layers, layers); /* else this machine cannot test it: see codemode doctor */
    p.on = layers;
    return p;
}

#define BIT(layer) (1u << CM_LAYER_##layer)

/* Runs `body` in the zygote's jail of a plan, and with `worker` in the worker's inside; it returns 0 when the layer
 * held. Returns what became of the process. */
static int status_in(const struct cm_jail_plan *plan, bool worker, int (*body)(void))
{
    int pair[2], status;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    pid_t parent = getpid(), child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct cm_err err;
        const struct cm_jail_worker w = {parent, {pair[1]}, 1, 0, 1ul << 30};
        if (cm_jail_zygote(plan, parent, &err) || (worker && cm_jail_worker(plan, &w, &err))) {
            dprintf(2, "# %s\n", err.text);
            _exit(NOT_JAILED);
        }
        int wrong = body();
        syscall(SYS_exit_group, wrong ? wrong : HELD);
    }
    close(pair[0]);
    close(pair[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void holds(uint32_t layers, bool worker, int (*body)(void))
{
    struct cm_jail_plan plan = only(layers);
    int status = status_in(&plan, worker, body);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != HELD)
        fail_msg("status %#x", (unsigned)status);
}

static bool refuses(int result, int reason)
{
    return result < 0 && errno == reason;
}

/* ---- landlock */

static int tries_files(void)
{
    if (!refuses(open("/etc/passwd", O_RDONLY), EACCES) || !refuses(open("/", O_RDONLY | O_DIRECTORY), EACCES))
        return 1;
    return refuses(open("/proc/self/stat", O_RDONLY), EACCES) || !refuses(mkdir("/tmp/x", 0700), EACCES) ? 2 : 0;
}

static int tries_everything(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || !refuses(open("/etc/passwd", O_RDONLY), EACCES) ||
        !refuses(open("/proc/self/stat", O_RDONLY), EACCES))
        return 1;
    if (machine.landlock_abi >= 4 && !refuses(connect(fd, (struct sockaddr *)&to, sizeof to), EACCES))
        return 2;
    return machine.landlock_abi >= 6 && !refuses(kill(getppid(), 0), EPERM) ? 3 : 0;
}

static void landlock_alone(void **state)
{
    (void)state;
    holds(BIT(LANDLOCK) | BIT(NO_NEW_PRIVS), false, tries_files);
    holds(BIT(LANDLOCK) | BIT(NO_NEW_PRIVS), true, tries_everything);
}

/* ---- namespaces */

static int looks_around(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || !refuses(open("/etc/passwd", O_RDONLY), ENOENT) || !refuses(open("/proc", O_RDONLY), ENOENT))
        return 1;
    if (chdir("..") || !refuses(open("mark", O_WRONLY | O_CREAT, 0600), EROFS))
        return 2;
    return refuses(connect(fd, (struct sockaddr *)&to, sizeof to), ENETUNREACH) ? 0 : 3;
}

/* A container may not let us have them; what the server makes of that is a test of its own. */
static void namespaces_alone(void **state)
{
    (void)state;
    if (machine.on & BIT(NAMESPACES))
        holds(BIT(NAMESPACES), false, looks_around);
    else
        assert_string_not_equal(machine.why_off[CM_LAYER_NAMESPACES], "");
}

/* ---- user and capabilities */

static int tries_roots_rights(void)
{
    int fd = open("/etc/shadow", O_RDONLY);
    if (fd >= 0 || setuid(0) == 0 || setgid(0) == 0 || chroot("/") == 0 || getuid() == 0 || geteuid() == 0)
        return 1;
    return getgroups(0, NULL) != 0 && machine.uid == getuid() ? 2 : 0;
}

static void another_user_without_capabilities(void **state)
{
    (void)state;
    holds(BIT(USER) | BIT(CAPABILITIES), true, tries_roots_rights);
}

/* ---- resource limits */

static int tries_to_use_more(void)
{
    if (!refuses(open("/", O_RDONLY), EMFILE) || (getuid() && !refuses(fork(), EAGAIN)))
        return 1;
    void *p = mmap(NULL, 2ul << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED && errno == ENOMEM ? 0 : 2;
}

static void resource_limits_alone(void **state)
{
    (void)state;
    holds(BIT(RLIMITS), true, tries_to_use_more);
    holds(BIT(RLIMITS) | BIT(USER) | BIT(CAPABILITIES), true, tries_to_use_more);
}

/* ---- memory that was written */

static int tries_to_make_code(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || !refuses(mprotect(p, 4096, PROT_READ | PROT_EXEC), EACCES))
        return 1;
    p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED && errno == EACCES ? 0 : 2;
}

static void written_memory_stays_data(void **state)
{
    (void)state;
    if (machine.on & BIT(MDWE))
        holds(BIT(MDWE), true, tries_to_make_code);
    else
        assert_string_not_equal(machine.why_off[CM_LAYER_MDWE], "");
}

/* ---- the zygote's filter */

static int opens_a_socket(void)
{
    syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
    return 1;
}

static int runs_a_program(void)
{
    char *const words[] = {"true", NULL};
    return execve("/bin/true", words, words + 1) ? 1 : 2;
}

static int forks_on_its_own(void)
{
    syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
    return 1;
}

static int makes_a_namespace(void)
{
    syscall(SYS_clone, 0x10000000 | 0x8000 | 0x1000 | SIGCHLD, NULL, NULL, NULL, 0);
    return 1;
}

static int writes_a_file(void)
{
    return open("/proc/self/comm", O_WRONLY) < 0 ? 1 : 2;
}

static int maps_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? 1 : 2;
}

static void the_zygote_has_few_calls(void **state)
{
    static int (*const bodies[])(void) = {opens_a_socket,    runs_a_program, forks_on_its_own,
                                          makes_a_namespace, writes_a_file,  maps_code};
    struct cm_jail_plan plan = only(BIT(SECCOMP) | BIT(NO_NEW_PRIVS));
    (void)state;
    for (unsigned i = 0; i < CM_COUNT_OF(bodies); i++) {
        int status = status_in(&plan, false, bodies[i]);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
            fail_msg("case %u ends with status %#x", i, (unsigned)status);
    }
}

/* ---- the one file that a worker opens in the jail of its zygote */

static int reads_its_page_map(void)
{
    static volatile char page[4096] __attribute__((aligned(4096)));
    uint64_t entry = 0;
    page[0] = 1;
    int fd = cm_jail_open_self("pagemap", NULL);
    if (fd < 0 || pread(fd, &entry, sizeof entry, (off_t)((uintptr_t)page / 4096 * 8)) != sizeof entry)
        return 1;
    return entry >> 63 != 1 || entry << 9 >> 9 != 0 ? 2 : 0; /* it is there, and where is not told */
}

static int reads_its_page_map_and_closes(void)
{
    int wrong = reads_its_page_map();
    return wrong ? wrong : prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) ? 3 : 0;
}

static void a_worker_can_open_its_page_map(void **state)
{
    (void)state;
    holds(machine.on, false, reads_its_page_map);
    holds(machine.on & ~BIT(SECCOMP), false, reads_its_page_map_and_closes);
    holds(machine.on & ~BIT(NAMESPACES), false, reads_its_page_map);
}

/* ---- a step that fails */

static int nothing(void)
{
    return 0;
}

static void a_step_that_fails_is_named(void **state)
{
    struct cm_jail_plan plan = only(BIT(LANDLOCK) | BIT(NO_NEW_PRIVS));
    struct cm_err err = {.text = ""};
    int status;
    (void)state;
    plan.landlock_abi = 0; /* no version: an empty ruleset, which the kernel refuses */
    assert_int_equal(WEXITSTATUS(status_in(&plan, false, nothing)), NOT_JAILED);
    pid_t child = fork();
    if (child == 0) {
        cm_jail_zygote(&plan, getppid(), &err);
        _exit(strstr(err.text, "jail step 12 of 13: open nothing but /proc: make a landlock ruleset") ? HELD : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), HELD);
}

/* ---- lists */

static void reads_lists_of_layers(void **state)
{
    struct cm_layers_wish w;
    struct cm_err err;
    (void)state;
    assert_int_equal(cm_layers_wish("", "", &w, &err), 0);
    assert_true(!w.waived && !w.required);
    assert_int_equal(cm_layers_wish(" landlock, user,,", "cgroup,speculation", &w, &err), 0);
    assert_int_equal(w.waived, BIT(LANDLOCK) | BIT(USER));
    assert_int_equal(w.required, BIT(CGROUP) | BIT(SPECULATION));
    assert_true(cm_layer_may_miss(CM_LAYER_LANDLOCK, &w) && cm_layer_may_miss(CM_LAYER_NAMESPACES, &w));
    assert_false(cm_layer_may_miss(CM_LAYER_SECCOMP, &w) || cm_layer_may_miss(CM_LAYER_CGROUP, &w));
    assert_true(cm_layer_wanted(CM_LAYER_SPECULATION, &w));
    assert_false(cm_layer_wanted(CM_LAYER_SPECULATION, &(struct cm_layers_wish){0, 0}));
    for (unsigned i = 0; i < 4; i++) {
        static const char *const wrong[][2] = {{"x", ""}, {"", "landlockk"}, {"rlimits", ""}, {"user", "user"}};
        assert_int_equal(cm_layers_wish(wrong[i][0], wrong[i][1], &w, &err), CM_ERR_CONFIG);
    }
}

/* ---- control group: in folders that look like one */

static void touch(const char *folder, const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    close(open(path, O_WRONLY | O_CREAT, 0600));
}

static const char *read_back(const char *folder, const char *name)
{
    static char text[64];
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void writes_the_limits_of_a_group(void **state)
{
    static const char *const files[] = {"cgroup.procs", "memory.max", "memory.swap.max", "pids.max", "cpu.max"};
    const struct cm_cgroup_limits limits = {1 << 20, 7, 2};
    char folder[] = "/tmp/unit-cgroup-XXXXXX", group[100], path[600];
    struct cm_cgroup g;
    struct cm_err err;
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(cm_cgroup_make(folder, &limits, &g, &err), CM_ERR_SANDBOX); /* a folder, no group */
    touch(folder, "cgroup.procs");
    assert_int_equal(cm_cgroup_make(folder, &limits, &g, &err), CM_ERR_SANDBOX);
    assert_non_null(strstr(err.text, "no folder has the controller memory"));
    assert_int_equal(cm_cgroup_make("relative", &limits, &g, &err), CM_ERR_CONFIG);
    snprintf(group, sizeof group, "%s/codemode-%d", folder, (int)getpid());
    assert_int_not_equal(access(group, F_OK), 0); /* what was made is gone again */
    mkdir(group, 0700);
    for (unsigned i = 0; i < CM_COUNT_OF(files); i++)
        touch(group, files[i]);
    assert_int_equal(cm_cgroup_make(folder, &limits, &g, &err), 0);
    assert_int_equal(g.count, 1);
    assert_string_equal(read_back(group, "memory.max"), "1048576");
    assert_string_equal(read_back(group, "memory.swap.max"), "0");
    assert_string_equal(read_back(group, "pids.max"), "7");
    assert_string_equal(read_back(group, "cpu.max"), "200000 100000");
    assert_int_equal(cm_cgroup_add(&g, 4711, &err), 0);
    assert_string_equal(read_back(group, "cgroup.procs"), "4711");
    for (unsigned i = 0; i < CM_COUNT_OF(files); i++)
        unlink((snprintf(path, sizeof path, "%s/%s", group, files[i]), path));
    cm_cgroup_remove(&g);
    assert_int_not_equal(access(group, F_OK), 0);
    unlink((snprintf(path, sizeof path, "%s/cgroup.procs", folder), path));
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(landlock_alone),
        cmocka_unit_test(namespaces_alone),
        cmocka_unit_test(another_user_without_capabilities),
        cmocka_unit_test(resource_limits_alone),
        cmocka_unit_test(written_memory_stays_data),
        cmocka_unit_test(the_zygote_has_few_calls),
        cmocka_unit_test(a_worker_can_open_its_page_map),
        cmocka_unit_test(a_step_that_fails_is_named),
        cmocka_unit_test(reads_lists_of_layers),
        cmocka_unit_test(writes_the_limits_of_a_group),
    };
    struct cm_err err;
    if (cm_jail_plan(&(struct cm_layers_wish){0, 0}, 65534, &machine, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
