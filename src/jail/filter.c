/* SPDX-License-Identifier: Apache-2.0 */
/* One block of comparisons per row. A block that does not match falls through to the next one, whatever it has looked
 * at so far, so several rows of one call mean "any of them"; behind the last block the process is killed. */
#include "jail/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "jail/jail.h"

#if !defined(__x86_64__)
#error "the system call filter knows x86-64 only"
#endif

#define X32_BIT   0x40000000u
#define BLOCK_MAX (3 + 4 * CM_JAIL_PINS_MAX)

const struct cm_jail_call cm_jail_calls[] = {
#define ANY
#define IS(argument, value)                 {argument, value, #value},
#define CM_SYSCALL(who, name, pins, reason) {CM_JAIL_##who, SYS_##name, #name, {pins}, reason},
#include "syscalls.def"
#undef CM_SYSCALL
#undef IS
#undef ANY
};
const unsigned cm_jail_calls_count = CM_COUNT_OF(cm_jail_calls);

#define LOAD(offset)      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)(offset))
#define RETURN(action)    BPF_STMT(BPF_RET | BPF_K, action)
#define SKIP_UNLESS(v, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, v, 0, n)

static unsigned pins_of(const struct cm_jail_call *c)
{
    unsigned n = 0;
    while (n < CM_JAIL_PINS_MAX && c->pins[n].text)
        n++;
    return n;
}

/* Both halves of a pinned argument are compared: the kernel passes 64 bits. */
static unsigned compile(const struct cm_jail_call *c, struct sock_filter *out)
{
    unsigned pins = pins_of(c), n = 0;
    unsigned left = 4 * pins + 1; /* instructions between the comparison of the number and the next block */
    out[n++] = (struct sock_filter)LOAD(offsetof(struct seccomp_data, nr));
    out[n++] = (struct sock_filter)SKIP_UNLESS(c->number, (uint8_t)left);
    for (unsigned i = 0; i < pins; i++, left -= 4) {
        const struct cm_jail_pin *p = &c->pins[i];
        size_t low = offsetof(struct seccomp_data, args) + sizeof(uint64_t) * p->argument;
        out[n++] = (struct sock_filter)LOAD(low);
        out[n++] = (struct sock_filter)SKIP_UNLESS((uint32_t)p->value, (uint8_t)(left - 2));
        out[n++] = (struct sock_filter)LOAD(low + 4);
        out[n++] = (struct sock_filter)SKIP_UNLESS((uint32_t)(p->value >> 32), (uint8_t)(left - 4));
    }
    out[n++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
    return n;
}

int cm_jail_filter_load(const struct cm_jail_call *calls, unsigned count, enum cm_jail_who who, struct cm_err *err)
{
    struct sock_filter code[6 + BLOCK_MAX * CM_JAIL_CALLS_MAX] = {
        LOAD(offsetof(struct seccomp_data, arch)), SKIP_UNLESS(AUDIT_ARCH_X86_64, 2),
        LOAD(offsetof(struct seccomp_data, nr)),   BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1),
        RETURN(SECCOMP_RET_KILL_PROCESS),
    };
    unsigned n = 5;
    if (count > CM_JAIL_CALLS_MAX)
        return cm_err_set(err, CM_ERR_SANDBOX, "%u rows in a system call filter", count);
    for (unsigned i = 0; i < count; i++)
        if (calls[i].who == who || calls[i].who == CM_JAIL_WORKER)
            n += compile(&calls[i], code + n);
    code[n++] = (struct sock_filter)RETURN(SECCOMP_RET_KILL_PROCESS);
    struct sock_fprog program = {.len = (unsigned short)n, .filter = code};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        return cm_err_sys(err, errno, "load the system call filter");
    return 0;
}
