/* SPDX-License-Identifier: Apache-2.0 */
/* What the settings security_policy, blocked_imports, allowed_imports and safe_builtins come to. */
#ifndef CM_CONF_POLICY_H
#define CM_CONF_POLICY_H

#include <stdbool.h>
#include <stddef.h>

#include "conf/conf.h"

#define CM_CONF_RULES_MAX 3072 /* bytes of a line of rules with its NUL: more than three settings fill */

/* *ret_rules: one line for the driver, the three lists without spaces, `blocked;allowed;builtins`. CM_ERR_CONFIG with the
 * setting named, and the outputs as they were, when the policy is none or a list holds what is no name of Python's.
 * Outputs may be NULL. */
int cm_conf_policy(const struct cm_conf *conf, bool *ret_strict, char ret_rules[CM_CONF_RULES_MAX], struct cm_err *err);

#endif
