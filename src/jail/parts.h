/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share. Nobody outside includes it.
 *
 * A probe returns true when the machine has the layer; else it puts the reason into `why` (CM_WHY_MAX bytes).
 */
#ifndef CM_JAIL_PARTS_H
#define CM_JAIL_PARTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define CM_WHY_MAX 96

/* Asks a child, for steps that cannot be taken back: whether `step` succeeds there. */
bool cm_jail_try(int (*step)(const void *arg, struct cm_err *err), const void *arg, char *why);

/* privilege */

/* The effective set; 0 when it cannot be read. */
uint64_t cm_caps_effective(void);
bool cm_caps_probe_user(uid_t uid, char *why);
/* Drops what it may from the bounding set, clears the ambient one and locks the secure bits. */
int cm_caps_bound(struct cm_err *err);
int cm_caps_drop(struct cm_err *err);
/* 0 when permitted, effective and inheritable are empty. */
int cm_caps_check(struct cm_err *err);
/* User, group and no further groups. Nothing when the process is not root. */
int cm_caps_leave_root(uid_t uid, struct cm_err *err);

/* landlock */

/* The kernel's version of it, at least 1; 0 and the reason. */
int cm_landlock_abi(char *why);
/* Forbids everything that the version knows, but reading below `readable` (a folder), which may be -1. */
int cm_landlock_restrict(int abi, int readable, struct cm_err *err);

/* namespaces */

/* *ret_user: a user namespace is part of it. */
bool cm_namespaces_probe(bool *ret_user, char *why);
int cm_namespaces_enter(bool with_user, struct cm_err *err);

#endif
