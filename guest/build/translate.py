#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns wasm2c's output into the C that we compile.

wasm2c writes one file for any host: memory and table are reached through an instance that each function gets as
its first argument. Ours has one instance at a fixed address, one memory at a constant base and a table that never
changes, so the argument goes, loads and stores take a constant base, and the table becomes read-only data. The
result is cut into parts that compile in parallel. Every replacement must be found: a new wasm2c that writes
something else stops the build instead of changing its meaning.

usage: translate.py WASM2C_OUTPUT.c OUT_DIR PARTS
"""
import re
import sys
from pathlib import Path

PRELUDE = [
    # Loads may fold into the instruction that uses them; wasm2c forbids it only to keep traps of unused loads.
    ('    wasm_asm("" ::"r"(result));                            \\\n', ''),
    ('static inline t3 name(wasm_rt_memory_t* mem, u64 addr) { \\\n'
     '    MEMCHECK(mem, addr, t1);                               \\\n'
     '    t1 result;                                             \\\n'
     '    wasm_rt_memcpy(&result, &mem->data[addr], sizeof(t1)); \\\n',
     'static inline t3 name(u64 addr) { \\\n'
     '    t1 result;                                             \\\n'
     '    wasm_rt_memcpy(&result, CM_MEMORY + addr, sizeof(t1)); \\\n'),
    ('static inline void name(wasm_rt_memory_t* mem, u64 addr, t2 value) { \\\n'
     '    MEMCHECK(mem, addr, t1);                                           \\\n'
     '    t1 wrapped = (t1)value;                                            \\\n'
     '    wasm_rt_memcpy(&mem->data[addr], &wrapped, sizeof(t1));            \\\n',
     'static inline void name(u64 addr, t2 value) { \\\n'
     '    t1 wrapped = (t1)value;                                            \\\n'
     '    wasm_rt_memcpy(CM_MEMORY + addr, &wrapped, sizeof(t1));            \\\n'),
    ('#define CALL_INDIRECT(table, t, ft, x, ...)             \\\n'
     '  (LIKELY((x) < table.size && table.data[x].func &&     \\\n'
     '          table.data[x].func_type == func_types[ft]) || \\\n'
     '       TRAP(CALL_INDIRECT),                             \\\n'
     '   ((t)table.data[x].func)(__VA_ARGS__))\n',
     '#define CALL_INDIRECT(t, ft, x, ...)                                                     \\\n'
     '  (LIKELY((x) < CM_TABLE_SIZE && cm_guest_table[x].type == (ft) + 1) || TRAP(CALL_INDIRECT), \\\n'
     '   ((t)cm_guest_table[x].func)(__VA_ARGS__))\n'),
    ('static inline void memory_fill(wasm_rt_memory_t* mem, u32 d, u32 val, u32 n) {\n'
     '  RANGE_CHECK(mem, d, n);\n  memset(mem->data + d, val, n);',
     'static inline void memory_fill(u32 d, u32 val, u32 n) {\n'
     '  RANGE_CHECK((&cm_guest.w2c_memory), d, n);\n  memset(CM_MEMORY + d, val, n);'),
    ('static inline void memory_copy(wasm_rt_memory_t* dest,\n'
     '                               const wasm_rt_memory_t* src,\n'
     '                               u32 dest_addr,\n                               u32 src_addr,\n'
     '                               u32 n) {\n'
     '  RANGE_CHECK(dest, dest_addr, n);\n  RANGE_CHECK(src, src_addr, n);\n'
     '  memmove(dest->data + dest_addr, src->data + src_addr, n);',
     'static inline void memory_copy(u32 dest_addr, u32 src_addr, u32 n) {\n'
     '  RANGE_CHECK((&cm_guest.w2c_memory), dest_addr, n);\n'
     '  RANGE_CHECK((&cm_guest.w2c_memory), src_addr, n);\n'
     '  memmove(CM_MEMORY + dest_addr, CM_MEMORY + src_addr, n);'),
]

CODE = [
    (r'\(Z_guest_instance_t\* instance, ', '('),
    (r'\(Z_guest_instance_t\* instance\)', '(void)'),
    (r'CALL_INDIRECT\(instance->w2c_T0, ([^()]*) \(\*\)\(void\*(?:, )?([^()]*)\), (\d+), (\w+), '
     r'instance->w2c_T0\.data\[\4\]\.module_instance(?:, )?', r'CALL_INDIRECT(\1 (*)(\2), \3, \4, '),
    (r', \)', ')'),
    (r'\(\*Z_hostZ_(\w+)\)\(instance->Z_host_instance(?:, )?', r'Z_hostZ_\1('),
    (r'memory_copy\(&instance->w2c_memory, &instance->w2c_memory, ', 'memory_copy('),
    (r'(\b(?:[if](?:32|64)_(?:load|store)\w*|memory_fill))\(&instance->w2c_memory, ', r'\1('),
    (r'(\bw2c_\w+)\(instance(?:, )?', r'\1('),
    (r'\binstance->', 'cm_guest.'),
]

DECLARATION = [
    (r'\(Z_guest_instance_t\*, ', '('),
    (r'\(Z_guest_instance_t\*\)', '(void)'),
]


def fail(message):
    sys.exit(f'translate.py: {message}: this wasm2c writes other C than the one that we know')


def replace_all(text, pairs):
    for old, new in pairs:
        if old not in text:
            fail(f'not found: {old[:60]!r}')
        text = text.replace(old, new)
    return text


def substitute(text, rules):
    for pattern, new in rules:
        text = re.sub(pattern, new, text)
    return text


def between(text, start, end):
    i = text.index(start)
    return text[i:text.index(end, i)]


def main():
    source = Path(sys.argv[1])
    out = Path(sys.argv[2])
    parts = int(sys.argv[3])
    text = source.read_text()
    header = source.with_suffix('.h').read_text()
    out.mkdir(parents=True, exist_ok=True)

    types_at = text.index('static u32 func_types[')
    prelude = replace_all(text[:types_at], PRELUDE)
    prelude = prelude[prelude.index('#define TRAP(x)'):]
    prelude = prelude[:prelude.index('static inline void memory_init(')]

    types = re.findall(r'func_types\[\d+\] = wasm_rt_register_func_type\((.*)\);', text)
    if len(set(types)) != len(types):
        fail('a function type stands twice')

    declarations = re.findall(r'^static [a-z0-9]+ w2c_\w+\(.*\);$', text, re.M)
    functions = re.findall(r'^static [a-z0-9]+ w2c_\w+\([^;{]*\) \{\n.*?^\}\n', text, re.M | re.S)
    if len(declarations) != len(functions):
        fail(f'{len(declarations)} declarations and {len(functions)} functions')

    elements = re.findall(r'^  \{(\d+), \(wasm_rt_function_ptr_t\)&(w2c_\w+|\(\*\w+\)|\w+), 0\},$', text, re.M)
    table = re.search(r'wasm_rt_allocate_funcref_table\(&instance->w2c_T0, (\d+), (\d+)\);\n'
                      r'  funcref_table_init\(&instance->w2c_T0, elem_segment_exprs_w2c_e0, (\d+), (\d+)u, 0, \3,', text)
    if not table or len(elements) != int(table.group(3)):
        fail('the function table')
    memory = re.search(r'wasm_rt_allocate_memory\(&instance->w2c_memory, (\d+), (\d+)\);', text)
    globals_ = between(text, 'static void init_globals(', '\n}\n') + '\n}\n'
    exports = re.findall(r"^/\* export: '(\w+)' \*/\n(\w+) Z_guestZ_\w+\((.*?)\) \{\n  return (w2c_\w+)\(", text, re.M)

    struct = between(header, 'typedef struct Z_guest_instance_t {', '} Z_guest_instance_t;')
    struct = re.sub(r'  struct Z_host_instance_t\* \w+;\n|  wasm_rt_funcref_table_t \w+;\n', '', struct)
    imports = re.findall(r'^(\w+ Z_hostZ_\w+)\(struct Z_host_instance_t\*(?:, )?(.*)\);$', header, re.M)

    h = ['/* Made by translate.py from wasm2c\'s output. */', '#pragma once',
         '#include <math.h>', '#include <stdbool.h>', '#include <stddef.h>', '#include <string.h>',
         '#include "wasm-rt.h"', struct + '} Z_guest_instance_t;',
         'extern Z_guest_instance_t cm_guest;',
         f'#define CM_TABLE_SIZE {table.group(1)}u',
         'struct cm_table_entry { void (*func)(void); u32 type; };',
         'extern const struct cm_table_entry cm_guest_table[CM_TABLE_SIZE];',
         'void cm_guest_instantiate(void);',
         f'#define CM_GUEST_PAGES {memory.group(1)}u']
    h += [f'{name}({args or "void"});' for name, args in imports]
    for name, ret, args, inner in exports:
        h.append(f'{ret} {inner}({substitute("(" + args + ")", CODE)[1:-1]});')
        if inner != f'w2c_{name}':
            h.append(f'#define w2c_{name} {inner}')
    (out / 'guest.h').write_text('\n'.join(h) + '\n')

    body = [substitute(f, CODE)[len('static '):] for f in functions]
    for f in body:
        if re.search(r'\binstance\b(?!_)', f):
            fail('an instance is left: ' + f[:200])
    private = '#pragma once\n#include "guest.h"\n' + prelude + '\n' + '\n'.join(
        substitute(d, DECLARATION)[len('static '):] for d in declarations) + '\n'
    (out / 'private.h').write_text(private)

    total = sum(map(len, body))
    part, size, chunk = 0, 0, []
    for f in body + [None]:
        if f is None or size > total * (part + 1) / parts:
            (out / f'part{part}.c').write_text('#include "private.h"\n\n' + '\n'.join(chunk))
            part, chunk = part + 1, []
        if f is not None:
            chunk.append(f)
            size += len(f)

    rows = '\n'.join(f'  [{int(table.group(4)) + i}] = {{(void (*)(void))&{name}, {int(ft) + 1}}},'
                     for i, (ft, name) in enumerate(elements))
    (out / 'table.c').write_text('#include "private.h"\n\nconst struct cm_table_entry cm_guest_table[CM_TABLE_SIZE] = {\n'
                                 + rows + '\n};\n')

    segments = re.findall(r'^static const u8 data_segment_data_\w+\[\] = \{.*?^\};\n', text, re.M | re.S)
    loads = re.findall(r'LOAD_DATA\(instance->w2c_memory, (\w+), (data_segment_data_\w+), (\d+)\);', text)
    (out / 'data.c').write_text(
        '#include "private.h"\n\n' + '\n'.join(segments) + '\n' + substitute(globals_, CODE)
        + '\nvoid cm_guest_instantiate(void) {\n  init_globals();\n'
        + '\n'.join(f'  memcpy(CM_MEMORY + {at}, {name}, {n});' for at, name, n in loads) + '\n}\n')


if __name__ == '__main__':
    main()
