/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CM_ROLES_ZYGOTE_H
#define CM_ROLES_ZYGOTE_H

#define CM_ZYGOTE_CHANNEL 3

/* The life of the sandbox executable: loads the image and forks workers on request until its channel closes.
 * Returns the process's exit code. */
int cm_zygote_main(const char *image_path);

#endif
