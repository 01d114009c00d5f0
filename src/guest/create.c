/* SPDX-License-Identifier: Apache-2.0 */
/* A guest from nothing, with its data segments: linked into the image builder only. */
#include <errno.h>
#include <sys/mman.h>

#include "guest/engine.h"

#include "guest.h"

int cm_guest_create(uint64_t limit, struct cm_err *err)
{
    if (mprotect(CM_MEMORY, limit, PROT_READ | PROT_WRITE))
        return cm_err_sys(err, errno, "give the guest memory");
    cm_guest.w2c_memory = (wasm_rt_memory_t){.pages = CM_GUEST_PAGES, .size = CM_GUEST_PAGES << 16};
    cm_guest_instantiate();
    cm_guest_set_limit(limit);
    return 0;
}
