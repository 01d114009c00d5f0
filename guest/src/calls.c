/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of tools.
 *
 * A call has a number on the wire, which counts from 1 in each execution, and a handle for Python, which never comes
 * again. Its answer goes to the thread that waits for it (wait_call) or to a Sleeper, on which an event loop sleeps: so
 * hundreds of asynchronous calls need no thread. A switch between threads happens only where something blocks or asks
 * the host; nothing here keeps a half-changed table across one.
 *
 * An answer is read into memory by the scheduler, whoever runs it. Where there is none, it is skipped, and the call
 * ends with a MemoryError.
 */
#define PY_SSIZE_T_CLEAN
#include "calls.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "sched.h"

enum tag {
#define CM_FIELD(name, tag, type) TAG_##name = (tag),
#include "fields.def"
#undef CM_FIELD
};

enum {
    CALLS_MAX = 512,          /* at once: CM_CALLS_AT_ONCE in src/ipc/frame.h */
    FRAME_MAX = 16 << 20,     /* of arguments and context, whatever the limits say */
    SLEEP_MAX = 1000000000,   /* seconds */
    OK = -1, NO_MEMORY = -2, OVER = -3, /* besides the failures of the wire, which are not negative */
    FULL = 0, TOO_MANY = -1, TOO_LARGE = -2, /* instead of a handle */
};

struct sleeper;

struct call {
    int64_t handle;  /* 0: this place is free */
    uint32_t number; /* in the running execution; 0: answered */
    bool no_memory, over;
    char *data;      /* the answer's fields */
    uint32_t len;
    struct sleeper *sleeper; /* NULL: a thread waits */
    struct call *next;       /* of the sleeper's answered ones */
};

struct sleeper {
    PyObject_HEAD
    bool woken;
    struct call *first, *last; /* answered */
};

static struct call calls[CALLS_MAX];
static int top; /* all behind it are free */
static int64_t handles;
static uint32_t numbers;
static uint64_t calls_max, argument_max;
int cm_calls_live;

static struct call *by_handle(int64_t handle)
{
    for (int i = 0; handle > 0 && i < top; i++)
        if (calls[i].handle == handle)
            return &calls[i];
    return NULL;
}

static struct call *by_number(uint32_t number)
{
    for (int i = 0; i < top; i++)
        if (calls[i].handle && calls[i].number == number)
            return &calls[i];
    return NULL;
}

static struct call *free_place(void)
{
    for (int i = 0; i < top; i++)
        if (!calls[i].handle)
            return &calls[i];
    return top < CALLS_MAX ? &calls[top++] : NULL;
}

static void forget(struct call *c)
{
    free(c->data);
    *c = (struct call){0};
    while (top > 0 && !calls[top - 1].handle)
        top--;
}

/* ---- answers */

static void finish(struct call *c)
{
    struct sleeper *s = c->sleeper;
    c->number = 0;
    cm_calls_live--;
    if (s) {
        if (s->last)
            s->last->next = c;
        else
            s->first = c;
        s->last = c;
    }
    cm_sched_wake(s ? (const void *)s : c);
}

void cm_calls_arrived(void)
{
    uint64_t answer = cm_host_answer();
    uint32_t len = (uint32_t)answer;
    struct call *c = by_number((uint32_t)(answer >> 32));
    char *data = c ? malloc(len ? len : 1) : NULL;
    cm_host_take(data);
    if (!c)
        return; /* it was cancelled */
    c->data = data;
    c->len = len;
    c->no_memory = !data;
    finish(c);
}

void cm_calls_begin(uint64_t calls, uint64_t argument)
{
    numbers = 0;
    calls_max = calls;
    argument_max = argument < FRAME_MAX ? argument : FRAME_MAX;
}

void cm_calls_end(void)
{
    for (int i = 0; i < top; i++)
        if (calls[i].handle && calls[i].number) {
            calls[i].over = true;
            finish(&calls[i]);
        }
}

/* ---- asking */

static char *put(char *to, enum tag tag, const void *data, size_t len)
{
    uint32_t n = (uint32_t)len;
    if (!data)
        return to;
    *to = (char)tag;
    memcpy(to + 1, &n, 4);
    memcpy(to + 5, data, len);
    return to + 5 + len;
}

static void cancel(struct call *c)
{
    char fields[16];
    uint32_t number = c->number;
    bool live = number != 0;
    forget(c);
    if (!live)
        return;
    cm_calls_live--;
    cm_host_call(CM_HOST_CANCEL, fields, (size_t)(put(fields, TAG_CALL, &number, 4) - fields));
}

struct text {
    const char *data; /* NULL: there is none */
    Py_ssize_t len;
};

/* False when there is no memory. */
static bool send(struct call *c, struct text name, struct text arguments, struct text context, uint32_t timeout_ms)
{
    char *fields = malloc((size_t)(name.len + arguments.len + context.len) + 64), *to = fields;
    if (!fields)
        return false;
    to = put(to, TAG_CALL, &c->number, 4);
    to = put(to, TAG_NAME, name.data, (size_t)name.len);
    to = put(to, TAG_ARGUMENTS, arguments.data, (size_t)arguments.len);
    to = put(to, TAG_CONTEXT, context.data, (size_t)context.len);
    if (timeout_ms)
        to = put(to, TAG_CALL_TIMEOUT, &timeout_ms, 4);
    cm_calls_live++;
    cm_host_call(CM_HOST_CALL, fields, (size_t)(to - fields));
    free(fields);
    return true;
}

static PyTypeObject sleeper_type;

static PyObject *py_call(PyObject *self, PyObject *args)
{
    struct text name, arguments, context;
    unsigned long timeout_ms;
    PyObject *sleeper;
    (void)self;
    if (!PyArg_ParseTuple(args, "s#s#z#kO:call", &name.data, &name.len, &arguments.data, &arguments.len, &context.data,
                          &context.len, &timeout_ms, &sleeper))
        return NULL;
    if (sleeper != Py_None && !PyObject_TypeCheck(sleeper, &sleeper_type))
        return PyErr_Format(PyExc_TypeError, "call: a Sleeper or None is needed");
    if (numbers >= calls_max)
        return PyLong_FromLong(TOO_MANY);
    if ((uint64_t)arguments.len + (uint64_t)context.len > argument_max)
        return PyLong_FromLong(TOO_LARGE);
    struct call *c = free_place();
    if (!c)
        return PyLong_FromLong(FULL);
    int64_t handle = ++handles;
    *c = (struct call){.handle = handle, .number = numbers + 1};
    c->sleeper = sleeper == Py_None ? NULL : (struct sleeper *)sleeper;
    numbers++;
    if (!send(c, name, arguments, context, (uint32_t)timeout_ms)) {
        numbers--;
        forget(c);
        return PyErr_NoMemory();
    }
    return PyLong_FromLongLong(handle);
}

static PyObject *py_cancel(PyObject *self, PyObject *arg)
{
    struct call *c = by_handle(PyLong_AsLongLong(arg));
    (void)self;
    if (PyErr_Occurred())
        return NULL;
    if (c && c->sleeper && !c->number)
        Py_RETURN_NONE; /* it waits to be taken from its sleeper */
    if (c)
        cancel(c);
    Py_RETURN_NONE;
}

/* ---- taking answers */

struct outcome {
    int failure; /* OK, NO_MEMORY, OVER, or of the wire */
    struct text text;
};

static void get_field(struct outcome *o, enum tag tag, const char *data, uint32_t n)
{
    if (tag == TAG_DATA || tag == TAG_ERROR)
        o->text = (struct text){data, n};
    else if (tag == TAG_FAILURE && n == 1)
        o->failure = (unsigned char)*data;
    else if (tag == TAG_SUCCESS && n == 1 && *data)
        o->failure = OK;
}

static struct outcome read_fields(const struct call *c)
{
    struct outcome o = {0, {"", 0}};
    if (c->over || c->no_memory)
        o.failure = c->over ? OVER : NO_MEMORY;
    for (uint32_t at = 0, n; c->data && at + 5 <= c->len; at += 5 + n) {
        memcpy(&n, c->data + at + 1, 4);
        if (n > c->len - at - 5)
            break;
        get_field(&o, (enum tag)(unsigned char)c->data[at], c->data + at + 5, n);
    }
    return o;
}

/* (handle, failure, text); the call is forgotten. */
static PyObject *take(struct call *c)
{
    struct outcome o = read_fields(c);
    PyObject *t = Py_BuildValue("(Lis#)", (long long)c->handle, o.failure, o.text.data, o.text.len);
    forget(c);
    return t;
}

static PyObject *py_wait_call(PyObject *self, PyObject *arg)
{
    int64_t handle = PyLong_AsLongLong(arg);
    struct call *c = by_handle(handle);
    (void)self;
    if (PyErr_Occurred())
        return NULL;
    while (c && c->handle == handle && c->number) {
        int why;
        Py_BEGIN_ALLOW_THREADS /* others may run in it, and the answer may come: its wake-up would have met nobody */
        why = c->handle == handle && c->number ? cm_sched_block(c, -1) : 0;
        Py_END_ALLOW_THREADS
        if (why == EINTR && PyErr_CheckSignals()) {
            if (c->handle == handle)
                cancel(c);
            return NULL;
        }
    }
    if (!c || c->handle != handle || c->sleeper)
        return PyErr_Format(PyExc_ValueError, "no thread may wait for this call");
    return take(c);
}

/* ---- sleepers: what an event loop has in the place of a selector */

static PyObject *sleeper_wake(struct sleeper *s, PyObject *unused)
{
    (void)unused;
    s->woken = true;
    cm_sched_wake(s);
    Py_RETURN_NONE;
}

/* Monotonic ns; -1: none, 0: do not wait. -2 with a Python error. */
static int64_t deadline_of(PyObject *timeout)
{
    if (timeout == Py_None)
        return -1;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -2;
    if (!(seconds > 0))
        return 0;
    return cm_sched_now() + (int64_t)((seconds < SLEEP_MAX ? seconds : SLEEP_MAX) * 1e9);
}

static PyObject *sleeper_select(struct sleeper *s, PyObject *timeout)
{
    int64_t deadline = deadline_of(timeout);
    int why = 0;
    if (deadline == -2)
        return NULL;
    if (deadline == 0 && cm_calls_live && !s->first) {
        cm_sched_look();
    } else if (deadline && !s->woken && !s->first) {
        Py_BEGIN_ALLOW_THREADS /* as in py_wait_call() */
        why = s->woken || s->first ? 0 : cm_sched_block(s, deadline);
        Py_END_ALLOW_THREADS
    }
    if (why == EINTR && PyErr_CheckSignals())
        return NULL;
    s->woken = false;
    return PyTuple_New(0);
}

static PyObject *sleeper_answer(struct sleeper *s, PyObject *unused)
{
    struct call *c = s->first;
    (void)unused;
    if (!c)
        Py_RETURN_NONE;
    s->first = c->next;
    if (!s->first)
        s->last = NULL;
    return take(c);
}

static void sleeper_dealloc(struct sleeper *s)
{
    PyTypeObject *type = Py_TYPE(s);
    for (int i = 0; i < top; i++)
        if (calls[i].handle && calls[i].sleeper == s)
            cancel(&calls[i]);
    type->tp_free(s);
}

static PyMethodDef sleeper_methods[] = {
    {"select", (PyCFunction)sleeper_select, METH_O,
     "Waits for wake(), the answer of a call, or the end of so many seconds; None waits for ever."},
    {"wake", (PyCFunction)sleeper_wake, METH_NOARGS, "Ends the select() of another thread, or the next one here."},
    {"answer", (PyCFunction)sleeper_answer, METH_NOARGS, "The next answer as wait_call() gives it, or None."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject sleeper_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "_codemode.Sleeper",
    .tp_basicsize = sizeof(struct sleeper),
    .tp_dealloc = (destructor)sleeper_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "What an event loop sleeps on.",
    .tp_methods = sleeper_methods,
    .tp_new = PyType_GenericNew,
};

static PyMethodDef functions[] = {
    {"call", py_call, METH_VARARGS,
     "call(name, arguments, context, timeout_ms, sleeper): sends a call. Its handle, which is above 0; or 0: too many at "
     "once, -1: too many in this execution, -2: too many bytes. Without a Sleeper, wait_call() has to follow."},
    {"wait_call", py_wait_call, METH_O,
     "(handle, failure, text) of a call. failure: -1 none, -2 no memory for the answer, -3 the execution is over, or a "
     "number of the protocol's."},
    {"cancel_call", py_cancel, METH_O, "Nobody waits for it any more."},
    {NULL, NULL, 0, NULL},
};

int cm_calls_init(PyObject *module)
{
    return PyModule_AddFunctions(module, functions) || PyModule_AddType(module, &sleeper_type) ? -1 : 0;
}
