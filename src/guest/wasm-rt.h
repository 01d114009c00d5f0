/* SPDX-License-Identifier: Apache-2.0 */
/* What C made by wasm2c expects of its runtime; this one takes the place of wabt's own.
 *
 * Memory is checked by the guard pages of its reservation alone, the stack by its guard page; a trap ends the
 * session (engine.c).
 */
#ifndef CM_GUEST_WASM_RT_H
#define CM_GUEST_WASM_RT_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

typedef uint8_t u8;
typedef int8_t s8;
typedef uint16_t u16;
typedef int16_t s16;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint64_t u64;
typedef int64_t s64;
typedef float f32;
typedef double f64;

#define LIKELY(x)                       __builtin_expect(!!(x), 1)
#define UNLIKELY(x)                     __builtin_expect(!!(x), 0)
#define wasm_rt_memcpy                  __builtin_memcpy
#define WASM_RT_USE_STACK_DEPTH_COUNT   0
#define WASM_RT_MEMCHECK_SIGNAL_HANDLER 1

typedef enum {
    WASM_RT_TRAP_NONE,
    WASM_RT_TRAP_OOB,
    WASM_RT_TRAP_INT_OVERFLOW,
    WASM_RT_TRAP_DIV_BY_ZERO,
    WASM_RT_TRAP_INVALID_CONVERSION,
    WASM_RT_TRAP_UNREACHABLE,
    WASM_RT_TRAP_CALL_INDIRECT,
    WASM_RT_TRAP_EXHAUSTION,
    WASM_RT_TRAP_EXIT, /* ours: the guest asked to end */
} wasm_rt_trap_t;

typedef struct {
    uint32_t pages, size; /* size in bytes; pages of 64 KiB */
    uint32_t max_pages;
} wasm_rt_memory_t;

_Noreturn void wasm_rt_trap(wasm_rt_trap_t why);
/* The previous number of pages, or UINT32_MAX when the session's limit is in the way. */
uint32_t wasm_rt_grow_memory(wasm_rt_memory_t *memory, uint32_t pages);

#endif
