/* SPDX-License-Identifier: Apache-2.0 */
/* codemode-profile STDLIB.tar TRAIN.py OUT.profraw: runs the cells of TRAIN.py in an instrumented guest and writes what
 * was counted. Built by guest/pgo.sh only. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/engine.h"
#include "ipc/frame.h"
#include "sandbox/build.h"

/* Of compiler-rt's profile runtime, which has no header. */
void __llvm_profile_set_filename(const char *path);
int __llvm_profile_write_file(void);

enum { ROUNDS = 25, FILE_MAX = 1 << 20 };

static size_t read_file(const char *path, char *to)
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(to, 1, FILE_MAX, f) : 0;
    if (f)
        fclose(f);
    return n;
}

static int execute(const char *code, size_t len, struct cm_err *err)
{
    struct cm_ipc_msg m;
    uint32_t at, unused;
    cm_ipc_msg_begin(&m, CM_MSG_EXECUTE, 1);
    cm_ipc_put_bytes(&m, CM_FIELD_CODE, code, len);
    cm_ipc_put_uint(&m, CM_FIELD_LOCALS_MAX, 65536);
    cm_ipc_put_uint(&m, CM_FIELD_RESULT_MAX, 65536);
    int rc = cm_ipc_msg_finish(&m, err);
    uint32_t size = (uint32_t)cm_ipc_msg_size(&m) - CM_IPC_HEADER_SIZE;
    if (!rc)
        rc = cm_build_call("alloc", CM_ENTRY_ALLOC, size, 0, &at, err);
    char *to = rc ? NULL : cm_guest_memory(at, size);
    for (int i = 1; to && i < m.iovcnt; i++) {
        memcpy(to, m.iov[i].iov_base, m.iov[i].iov_len);
        to += m.iov[i].iov_len;
    }
    return rc ? rc : cm_build_call("execute", CM_ENTRY_EXECUTE, at, size, &unused, err);
}

/* Every part between lines that begin with "# ---" is a cell. */
static int execute_cells(char *text, struct cm_err *err)
{
    int rc = 0;
    for (char *cell = strstr(text, "\n# ---"); !rc && cell;) {
        char *next = strstr(cell + 1, "\n# ---");
        rc = execute(cell + 1, next ? (size_t)(next - cell) : strlen(cell + 1), err);
        cell = next;
    }
    return rc;
}

int main(int argc, char **argv)
{
    static char text[FILE_MAX + 1];
    struct cm_err err;
    if (argc != 4 || !read_file(argv[2], text)) {
        fputs("usage: codemode-profile STDLIB.tar TRAIN.py OUT.profraw\n", stderr);
        return 2;
    }
    int rc = cm_build_guest(argv[1], false, &err);
    for (int i = 0; !rc && i < ROUNDS; i++)
        rc = execute_cells(text, &err);
    __llvm_profile_set_filename(argv[3]);
    if (!rc && __llvm_profile_write_file())
        rc = cm_err_set(&err, CM_ERR_SYSTEM, "%s cannot be written", argv[3]);
    if (rc)
        fprintf(stderr, "codemode-profile: %s\n", err.text);
    return rc ? 1 : 0;
}
