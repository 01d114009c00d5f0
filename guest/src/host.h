/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that the guest may ask of its host: the import list of the module, and so its attack surface.
 *
 * wait(), switch(), call() and take() leave the native stack; the other calls answer at once. Pointers are checked by
 * the host against the size of the linear memory; a wrong one ends the worker.
 */
#ifndef CM_GUEST_HOST_H
#define CM_GUEST_HOST_H

#include <stddef.h>
#include <stdint.h>

#define CM_IMPORT(name) __attribute__((import_module("host"), import_name(name)))
#define CM_EXPORT(name) __attribute__((export_name(name), used))

/* Waits until something happens or `deadline` (monotonic ns; < 0: none; 0: only look) has passed.
 * CM_WAIT_DEADLINE, CM_WAIT_INTERRUPT, CM_WAIT_OUTPUT, or CM_WAIT_ANSWER: an answer has to be taken. */
enum { CM_WAIT_DEADLINE = 0, CM_WAIT_INTERRUPT = 1, CM_WAIT_OUTPUT = 2, CM_WAIT_ANSWER = 3 };
CM_IMPORT("wait") int cm_host_wait(int64_t deadline);
/* Runs green thread `to` on its own native stack; comes back when another thread switches to `from`. */
CM_IMPORT("switch") void cm_host_switch(int from, int to);
/* Prepares a native stack for green thread `slot`, which will start in cm_guest_thread() with its shadow stack
 * at `shadow_top`. */
CM_IMPORT("spawn") void cm_host_spawn(int slot, void *shadow_top);
/* Nanoseconds of clock 0 (realtime), 1 (monotonic) or 2 (CPU time of this process). */
CM_IMPORT("clock") int64_t cm_host_clock(int id);
/* Fills with bytes from the system's random source. */
CM_IMPORT("random") void cm_host_random(void *out, size_t len);
/* Hands bytes to the host: stream 1 stdout, 2 stderr. Takes all of them, or none and answers 0 when its buffer is
 * full: then wait for CM_WAIT_OUTPUT. */
CM_IMPORT("emit") int cm_host_emit(int stream, const void *data, size_t len);
/* Sends the fields of a CALL frame, or of a CALL_CANCEL frame (tables/messages.def). With CM_HOST_READ it fills the
 * memory with the next bytes of the value that has come with a LOAD frame: to ask for more than there are ends the worker. */
enum { CM_HOST_CALL = 0, CM_HOST_CANCEL = 1, CM_HOST_READ = 2 };
CM_IMPORT("call") void cm_host_call(int what, const void *fields, size_t len);
/* The answer that wait() has told of: the call's number << 32 | bytes of its fields; 0 when there is none. */
CM_IMPORT("answer") uint64_t cm_host_answer(void);
/* Puts its fields to an address, or nowhere when that is NULL. */
CM_IMPORT("take") void cm_host_take(void *to);
/* Makes one 4 KiB page of linear memory inaccessible for good: the guard below a shadow stack. */
CM_IMPORT("guard") void cm_host_guard(void *page);
/* Ends the worker. */
CM_IMPORT("exit") _Noreturn void cm_host_exit(int code);

#endif
