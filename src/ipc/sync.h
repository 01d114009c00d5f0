/* SPDX-License-Identifier: Apache-2.0 */
/* Blocking frames for the sandbox's side: one descriptor, plain system calls, no allocation.
 *
 * A call interrupted by a signal goes on. Writing to a peer that is gone raises SIGPIPE unless the process ignores
 * it; then the call answers CM_ERR_SYSTEM. System calls: read, writev, and sendmsg/recvmsg in the *_fd calls alone.
 */
#ifndef CM_IPC_SYNC_H
#define CM_IPC_SYNC_H

#include "ipc/frame.h"

/* Next header by read(). 1 = there it is, 0 = the peer has closed between frames, negative = error. */
int cm_ipc_read_header(int fd, enum cm_ipc_role sender, enum cm_ipc_role receiver, struct cm_ipc_header *ret,
                       struct cm_err *err);
/* The same by recvmsg(), with the descriptor that the table demands for this type; *ret_fd is -1 when it demands
 * none. It comes close-on-exec and belongs to the caller. */
int cm_ipc_recv_header_fd(int fd, enum cm_ipc_role sender, enum cm_ipc_role receiver, struct cm_ipc_header *ret,
                          int *ret_fd, struct cm_err *err);
/* Exactly `len` bytes of payload into memory that the caller has sized by the header. */
int cm_ipc_read_payload(int fd, void *to, size_t len, struct cm_err *err);
/* Reads `len` bytes of payload that nobody can take, so that the next frame can be read. */
int cm_ipc_skip_payload(int fd, size_t len, struct cm_err *err);
/* Writes a frame whose payload is fields already. */
int cm_ipc_write_payload(int fd, enum cm_ipc_type type, uint64_t id, const void *payload, size_t len,
                         struct cm_err *err);
/* Finishes the message and writes it whole. The message's vector is used up. */
int cm_ipc_write(int fd, struct cm_ipc_msg *m, struct cm_err *err);
/* The same with a descriptor, which stays the caller's. */
int cm_ipc_write_fd(int fd, struct cm_ipc_msg *m, int passed, struct cm_err *err);
/* For a signal handler: a frame is being written, or was left unfinished by an error. Descriptors are not told apart. */
bool cm_ipc_writing(void);

#endif
