/* SPDX-License-Identifier: Apache-2.0 */
/* The files of deploy/, within the program. */
#ifndef CM_CLI_ASSETS_H
#define CM_CLI_ASSETS_H

#include <stdbool.h>
#include <stddef.h>

struct cm_asset {
    const char *name; /* of the file */
    const unsigned char *data; /* ends with a NUL that does not count */
    const size_t *size;
    bool exported; /* by `docker assets` */
};
extern const struct cm_asset cm_assets[]; /* ends with name NULL */

/* The name must be one of them. */
const struct cm_asset *cm_asset_find(const char *name);
/* Writes it to `path`, with the mode: CM_EXIT_OK, or an exit code after a message. An existing file is left alone unless
 * `force`. A file that cannot be written whole is not left behind. */
int cm_asset_write(const struct cm_asset *asset, const char *path, bool force);
int cm_cli_write_file(const char *path, const void *data, size_t len, unsigned mode, bool force);

#endif
