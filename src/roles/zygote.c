/* SPDX-License-Identifier: Apache-2.0 */
/* The zygote: a small process that forks workers.
 *
 * It was started with an empty environment before its parent read a secret, has the image open and has
 * touched no guest memory: so a fork copies next to nothing, and the worker maps the image afterwards. Workers
 * are made as children of the gateway (CLONE_PARENT): the gateway waits for them, and this process's death harms
 * none of them.
 */
#include "roles/zygote.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest/engine.h"
#include "ipc/sync.h"
#include "roles/worker.h"

static int send_hello(const struct cm_image *image, uint32_t layers, struct cm_err *err)
{
    struct cm_ipc_msg m;
    cm_ipc_msg_begin(&m, CM_MSG_HELLO, 0);
    cm_ipc_put_bytes(&m, CM_FIELD_IMAGE_HASH, image->id, strlen(image->id));
    cm_ipc_put_uint(&m, CM_FIELD_LAYERS, layers);
    return cm_ipc_write(CM_ZYGOTE_CHANNEL, &m, err);
}

static int send_failed(uint64_t id, const struct cm_err *why, struct cm_err *err)
{
    struct cm_ipc_msg m;
    cm_ipc_msg_begin(&m, CM_MSG_SPAWN_FAILED, id);
    cm_ipc_put_bytes(&m, CM_FIELD_ERROR, why->text, strlen(why->text));
    return cm_ipc_write(CM_ZYGOTE_CHANNEL, &m, err);
}

static int send_spawned(uint64_t id, pid_t pid, int pidfd, struct cm_err *err)
{
    struct cm_ipc_msg m;
    cm_ipc_msg_begin(&m, CM_MSG_SPAWNED, id);
    cm_ipc_put_uint(&m, CM_FIELD_PID, (uint64_t)pid);
    return cm_ipc_write_fd(CM_ZYGOTE_CHANNEL, &m, pidfd, err);
}

/* The child of this is the gateway's. 0 in the child. */
static pid_t fork_for_gateway(int *ret_pidfd)
{
    return (pid_t)syscall(SYS_clone, CLONE_PARENT | CLONE_PIDFD | SIGCHLD, NULL, ret_pidfd, NULL, 0);
}

static int spawn(uint64_t id, int channel, pid_t gateway, const struct cm_image *image, struct cm_err *err)
{
    cm_autofd int pidfd = -1;
    pid_t pid = fork_for_gateway(&pidfd);
    if (pid == 0)
        cm_worker_main(channel, gateway, image);
    if (pid < 0) {
        struct cm_err why;
        cm_err_sys(&why, errno, "fork a worker");
        return send_failed(id, &why, err);
    }
    return send_spawned(id, pid, pidfd, err);
}

static int serve_one(pid_t gateway, const struct cm_image *image, struct cm_err *err)
{
    struct cm_ipc_header h;
    cm_autofd int channel = -1;
    int rc = cm_ipc_recv_header_fd(CM_ZYGOTE_CHANNEL, CM_IPC_GATEWAY, CM_IPC_ZYGOTE, &h, &channel, err);
    if (rc <= 0)
        return rc;
    rc = spawn(h.id, channel, gateway, image, err);
    return rc ? rc : 1;
}

/* The image is opened by who we were started as; behind that nothing is opened any more. */
static int start(const struct cm_sandbox_args *args, pid_t gateway, struct cm_image *image, struct cm_err *err)
{
    uint32_t layers = 0;
    setsid(); /* a terminal's Ctrl-C is for the gateway, which then ends us in order */
    signal(SIGPIPE, SIG_IGN);
    int rc = cm_guest_reserve(&cm_worker_ops, err);
    if (!rc)
        rc = cm_image_load(args->image, image, err);
    if (!rc)
        rc = cm_zygote_confine(args, gateway, &layers, err);
    return rc ? rc : send_hello(image, layers, err);
}

int cm_zygote_main(const struct cm_sandbox_args *args)
{
    struct cm_err err;
    struct cm_image image;
    pid_t gateway = getppid();
    int rc = start(args, gateway, &image, &err);
    while (!rc || rc > 0) {
        rc = serve_one(gateway, &image, &err);
        if (rc == 0)
            return 0;
    }
    dprintf(STDERR_FILENO, "codemode-sandbox: %s\n", err.text);
    return 1;
}
