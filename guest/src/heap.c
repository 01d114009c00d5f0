/* SPDX-License-Identifier: Apache-2.0 */
#include "heap.h"

#define Py_BUILD_CORE 1
#include "Python.h"
#include "pycore_frame.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POOL_SIZE 4096 /* pymalloc's pools on a 32-bit machine */
#define SMALL_MAX 512
#define SMALL_STEP 16
#define CHUNK_MAX (1 << 20)

/* Allocates blocks of one size class until enough follow each other to fill a pool: then they come from a fresh
 * one, and all older ones are full. Blocks that are handed out here are never freed. */
static int fill_class(size_t size)
{
    enum { TRIES = 1 << 20 };
    char *last = NULL;
    int row = 0, pool = (int)(POOL_SIZE / size) - 2;
    for (int i = 0; i < TRIES && row < pool; i++) {
        char *p = PyObject_Malloc(size);
        if (!p)
            return -1;
        row = p == last + size ? row + 1 : 0;
        last = p;
    }
    return 0;
}

/* The same for malloc: takes every free chunk below the end of the heap, from large to small. */
static int fill_chunks(void)
{
    char *end = sbrk(0);
    for (size_t size = CHUNK_MAX; size >= 16; size -= size > 4096 ? size / 16 & ~(size_t)15 : 16)
        for (;;) {
            char *p = malloc(size);
            if (!p)
                return -1;
            if (p + size > end - (64 << 10)) {
                free(p);
                break;
            }
        }
    return 0;
}

/* Objects of the image live for ever: a session that only looks at them must not write to their pages, and a
 * reference count is a write. Everything reachable from the collector's lists is made immortal (PEP 683). */

struct list {
    PyObject **items;
    size_t len, capacity;
};

static bool immortal_now(PyObject *op)
{
    if (_Py_IsImmortal(op))
        return false;
    op->ob_refcnt = _Py_IMMORTAL_REFCNT;
    return true;
}

static int reach(PyObject *op, void *arg)
{
    struct list *todo = arg;
    if (!op || !immortal_now(op))
        return 0;
    if (todo->len == todo->capacity) {
        size_t capacity = todo->capacity ? todo->capacity * 2 : 1 << 14;
        PyObject **items = realloc(todo->items, capacity * sizeof *items);
        if (!items)
            return -1;
        todo->items = items;
        todo->capacity = capacity;
    }
    todo->items[todo->len++] = op;
    return 0;
}

/* Code objects do not take part in collection: what they hold is visited by name. */
static int reach_code(const PyCodeObject *code, struct list *todo)
{
    PyObject *const held[] = {code->co_consts, code->co_names,    code->co_exceptiontable, code->co_localsplusnames,
                              code->co_name,   code->co_filename, code->co_qualname,       code->co_linetable,
                              code->co_localspluskinds};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        if (reach(held[i], todo))
            return -1;
    return 0;
}

static int reach_from(PyObject *op, struct list *todo)
{
    if (PyCode_Check(op))
        return reach_code((PyCodeObject *)op, todo);
    bool static_type = PyType_Check(op) && !PyType_HasFeature((PyTypeObject *)op, Py_TPFLAGS_HEAPTYPE);
    traverseproc traverse = Py_TYPE(op)->tp_traverse;
    return traverse && !static_type ? traverse(op, reach, todo) : 0;
}

static PyObject *call_gc(const char *function)
{
    PyObject *gc = PyImport_ImportModule("gc");
    PyObject *result = gc ? PyObject_CallMethod(gc, function, NULL) : NULL;
    Py_XDECREF(gc);
    return result;
}

static int make_immortal(void)
{
    PyObject *all = call_gc("get_objects");
    if (!all)
        return -1;
    struct list todo = {0};
    int rc = 0;
    for (Py_ssize_t i = 0; !rc && i < PyList_GET_SIZE(all); i++)
        rc = reach(PyList_GET_ITEM(all, i), &todo);
    /* Later entries are found through earlier ones: the list grows while it is worked off. */
    for (size_t i = 0; !rc && i < todo.len; i++)
        rc = reach_from(todo.items[i], &todo);
    free(todo.items);
    Py_DECREF(all);
    if (rc)
        PyErr_NoMemory();
    PyObject *frozen = rc ? NULL : call_gc("freeze"); /* and the collector never looks at them again */
    Py_XDECREF(frozen);
    return frozen ? 0 : -1;
}

int heap_seal(void)
{
    if (make_immortal())
        return -1;
    for (size_t size = SMALL_STEP; size <= SMALL_MAX; size += SMALL_STEP)
        if (fill_class(size)) {
            PyErr_NoMemory();
            return -1;
        }
    if (fill_chunks()) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* Two reserves. The large one is for the driver, which releases it to describe a failure. The small one is released by
 * the first allocation that fails: what comes next is the traceback of the MemoryError, and without it nobody would
 * know the line. Both are larger than the 256 KiB that the interpreter's own allocator takes at a time, so that it does
 * not swallow them whole. Memory that nobody writes to costs nothing. */
enum { RESERVE = 2 << 20, LAST_RESERVE = 1 << 20, FIRST_AID = 768 << 10, HEADROOM = 4 << 20 };

static void *reserve, *first_aid;

static struct heap_place failed_at;

static bool is_cell(PyObject *filename, int *ret_number)
{
    static const char prefix[] = "<cell ";

    if (!PyUnicode_IS_COMPACT_ASCII(filename) || strncmp(PyUnicode_DATA(filename), prefix, sizeof prefix - 1) != 0)
        return false;
    *ret_number = atoi((const char *)PyUnicode_DATA(filename) + sizeof prefix - 1);
    return true;
}

/* It may be the traceback of another exception that finds no room: then the MemoryError has none itself, and nobody would
 * know the line. Takes no memory. */
static void note_place(void)
{
    PyThreadState *thread = PyThreadState_GetUnchecked();
    _PyInterpreterFrame *frame = thread ? thread->current_frame : NULL;

    for (; frame; frame = frame->previous) {
        int cell;
        if (_PyFrame_IsIncomplete(frame) || !is_cell(_PyFrame_GetCode(frame)->co_filename, &cell))
            continue;
        failed_at = (struct heap_place){cell, PyUnstable_InterpreterFrame_GetLine(frame)};
        return;
    }
}

struct heap_place heap_failed_at(void)
{
    return failed_at;
}

void heap_reserve_release(void)
{
    free(first_aid);
    free(reserve);
    first_aid = reserve = NULL;
}

void heap_reserve_take(void)
{
    failed_at = (struct heap_place){0, 0};
    void *room = malloc(HEADROOM + (reserve ? 0 : RESERVE) + (first_aid ? 0 : FIRST_AID));
    if (!room) {
        /* At the limit: the code needs most of what is left to make room, the driver the rest. */
        heap_reserve_release();
        reserve = malloc(LAST_RESERVE);
        return;
    }
    free(room);
    if (!reserve)
        reserve = malloc(RESERVE);
    if (!first_aid)
        first_aid = malloc(FIRST_AID);
}

/* The linker puts these in the place of the C library's functions (--wrap). */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);

/* Not for a request that first aid would not satisfy, or whose failure the interpreter's allocator mends by smaller
 * ones: code that fills the memory bit by bit would get it, and nothing would be left for the traceback. */
enum { SMALL_REQUEST = 64 << 10 };

static void *or_first_aid(void *p, size_t size)
{
    if (p)
        return p;
    note_place();
    if (first_aid && size <= SMALL_REQUEST) {
        free(first_aid);
        first_aid = NULL;
    }
    return p;
}

void *__wrap_malloc(size_t size)
{
    return or_first_aid(__real_malloc(size), size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return or_first_aid(__real_calloc(count, size), (uint64_t)count * size > SMALL_REQUEST ? SIZE_MAX : 0);
}

void *__wrap_realloc(void *p, size_t size)
{
    return or_first_aid(__real_realloc(p, size), size);
}
