/* SPDX-License-Identifier: Apache-2.0 */
/* Which tools the application has: the newest list of its ToolService, asked for when it is first needed and renewed
 * behind the scenes while it is used. Code that uses no tools never waits for it, whatever became of the service.
 */
#ifndef CM_TOOLS_REGISTRY_H
#define CM_TOOLS_REGISTRY_H

#include "tools/service.h"
#include "tools/toolset.h"

struct cm_loop;
struct cm_registry;
struct cm_registry_wait;

#define CM_REGISTRY_ATTEMPTS 3 /* with 0.5 s and 1 s between them */

/* What it is given must outlive it. */
struct cm_registry *cm_registry_new(struct cm_loop *loop, struct cm_tool_client *service, struct cm_metrics *metrics,
                                    struct cm_err *err);
/* Whoever waits is not answered any more. Accepts NULL, returns NULL. */
struct cm_registry *cm_registry_free(struct cm_registry *r);

/* The newest list, or NULL when there has been none; the registry's. One that is older than 30 s, or from before the
 * service was out of reach, is renewed meanwhile. */
struct cm_toolset *cm_registry_set(struct cm_registry *r);
/* A list that is at most a second old, or with `since_ns` one that was asked for then or later, because an application
 * may have registered a tool just before it names it; 0: none such. At most `attempts` times; a failure is remembered for a second as well. `done` comes from the loop: `set` is the registry's, or NULL with the reason in `why`, for people. */
typedef void cm_registry_done(void *arg, struct cm_toolset *set, const char *why);
struct cm_registry_wait *cm_registry_fetch(struct cm_registry *r, unsigned attempts, uint64_t since_ns,
                                           cm_registry_done *done, void *arg, struct cm_err *err);
/* `done` is not called any more. */
void cm_registry_wait_cancel(struct cm_registry_wait *w);

/* What a list did not say of a tool, and was asked for: it is taken over, and forgotten with the next list but for tools
 * that it still says nothing of. */
void cm_registry_learn(struct cm_registry *r, struct cm_tool *tool);
/* The tool itself, or what was learned of it. */
const struct cm_tool *cm_registry_details(struct cm_registry *r, const struct cm_tool *tool);

#endif
