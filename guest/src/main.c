/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's entry points, called by the host on the main thread's stack.
 *
 * Image time: _initialize, guest_alloc + guest_mount (the standard library), guest_init (the interpreter and the
 * driver), guest_seal; the memory as it is then becomes the image. Session time: guest_start once, and for each
 * execution guest_alloc, then guest_execute with the fields of an EXECUTE or LOAD frame (tables/messages.def).
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calls.h"
#include "content.h"
#include "fs.h"
#include "heap.h"
#include "host.h"
#include "sched.h"

#define STDLIB L"/usr/lib/python3.13"
#define HOME_DIR "/home/user"

enum tag {
#define CM_FIELD(name, tag, type) TAG_##name = (tag),
#include "fields.def"
#undef CM_FIELD
};

static PyObject *driver_execute, *driver_put, *driver_reseed;

/* The answer of the last execution: fields, read by the host after guest_execute has returned. */
static struct {
    char *data;
    uint32_t len, capacity;
} answer;

CM_EXPORT("guest_alloc") void *cm_guest_alloc(uint32_t size)
{
    return malloc(size);
}

/* ---- the answer */

static bool answer_room(uint32_t more)
{
    uint32_t need = answer.len + more;
    if (need <= answer.capacity)
        return true;
    char *data = realloc(answer.data, need + need / 2);
    if (!data)
        return false;
    answer.data = data;
    answer.capacity = need + need / 2;
    return true;
}

static bool put_bytes(enum tag tag, const void *data, size_t len)
{
    uint32_t n = (uint32_t)len;
    if (!answer_room(5 + n))
        return false;
    answer.data[answer.len] = (char)tag;
    memcpy(answer.data + answer.len + 1, &n, 4);
    memcpy(answer.data + answer.len + 5, data, n);
    answer.len += 5 + n;
    return true;
}

/* None becomes no field at all. */
static bool put_text(enum tag tag, PyObject *text)
{
    if (text == Py_None)
        return true;
    Py_ssize_t len;
    const char *s = PyUnicode_AsUTF8AndSize(text, &len);
    return s && put_bytes(tag, s, (size_t)len);
}

/* What codemode_driver.execute() returns: success, the texts in this order, and which of them were cut. */
static bool put_answer(PyObject *t)
{
    static const enum tag texts[] = {TAG_RESULT, TAG_ERROR, TAG_ERROR_TYPE, TAG_TRACEBACK, TAG_LOCALS, TAG_DETAIL};
    enum { TEXTS = sizeof texts / sizeof *texts };
    if (!PyTuple_Check(t) || PyTuple_GET_SIZE(t) != TEXTS + 2)
        return false;
    unsigned char success = PyTuple_GET_ITEM(t, 0) == Py_True;
    bool ok = put_bytes(TAG_SUCCESS, &success, 1);
    for (int i = 0; ok && i < TEXTS; i++)
        ok = put_text(texts[i], PyTuple_GET_ITEM(t, i + 1));
    unsigned char cut = (unsigned char)PyLong_AsLong(PyTuple_GET_ITEM(t, TEXTS + 1));
    return ok && (!cut || put_bytes(TAG_TRUNCATED, &cut, 1));
}

enum { FAILURE_MAX = 256 }; /* more than put_failure() and the memory's peak take */

/* The driver promises an answer for everything; if memory is too short even for that, say so. */
static void put_failure(void)
{
    static const char text[] = "MemoryError: not enough memory left to describe the outcome", type[] = "MemoryError";
    unsigned char success = 0;
    PyErr_Clear();
    answer.len = 0;
    put_bytes(TAG_SUCCESS, &success, 1);
    put_bytes(TAG_ERROR, text, sizeof text - 1);
    put_bytes(TAG_ERROR_TYPE, type, sizeof type - 1);
    put_bytes(TAG_LOCALS, "{}", 2);
}

/* ---- the request */

struct request {
    const char *code, *context, *config, *tools, *name; /* name: of a LOAD, which has no code */
    uint32_t code_len, context_len, config_len, tools_len, name_len;
    /* 0: not said */
    uint64_t mode, locals_max, result_max, recursion, memory_limit, files_max, file_bytes_max, tool_calls, tool_argument;
    uint64_t kind, length;
};

/* Where a request keeps the number of a tag; NULL for what is no number, or not the guest's business. */
static uint64_t *number_of(struct request *r, enum tag tag)
{
    switch (tag) {
    case TAG_MODE:
        return &r->mode;
    case TAG_LOCALS_MAX:
        return &r->locals_max;
    case TAG_RESULT_MAX:
        return &r->result_max;
    case TAG_RECURSION:
        return &r->recursion;
    case TAG_MEMORY_LIMIT:
        return &r->memory_limit;
    case TAG_FILES_MAX:
        return &r->files_max;
    case TAG_FILE_BYTES_MAX:
        return &r->file_bytes_max;
    case TAG_TOOL_CALLS:
        return &r->tool_calls;
    case TAG_TOOL_ARGUMENT:
        return &r->tool_argument;
    case TAG_KIND:
        return &r->kind;
    case TAG_LENGTH:
        return &r->length;
    default:
        return NULL;
    }
}

/* Fields that the guest does not know are skipped: an EXECUTE frame also says things that concern only the worker
 * around it, and what is new there must not need a new guest, whose machine code takes minutes to build. */
static void get_field(struct request *r, enum tag tag, const char *data, uint32_t n)
{
    uint64_t *number = number_of(r, tag);
    if (tag == TAG_CODE)
        r->code = data, r->code_len = n;
    else if (tag == TAG_CONTEXT)
        r->context = data, r->context_len = n;
    else if (tag == TAG_CONFIG)
        r->config = data, r->config_len = n;
    else if (tag == TAG_TOOLS)
        r->tools = data, r->tools_len = n;
    else if (tag == TAG_NAME)
        r->name = data, r->name_len = n;
    else if (number && n <= sizeof *number)
        memcpy(number, data, n);
}

static bool get_request(const char *p, uint32_t len, struct request *r)
{
    for (uint32_t at = 0, n; at < len; at += 5 + n) {
        if (len - at < 5)
            return false;
        memcpy(&n, p + at + 1, 4);
        if (n > len - at - 5)
            return false;
        get_field(r, (enum tag)(unsigned char)p[at], p + at + 5, n);
    }
    return r->code || r->name;
}

static PyObject *call_driver(const struct request *r)
{
    if (r->name)
        return PyObject_CallFunction(driver_put, "s#KKK", r->name, (Py_ssize_t)r->name_len, r->kind, r->result_max,
                                     r->memory_limit);
    return PyObject_CallFunction(driver_execute, "s#z#KKKKKz#z#KK", r->code, (Py_ssize_t)r->code_len, r->context,
                                 (Py_ssize_t)r->context_len, r->mode, r->locals_max, r->result_max, r->recursion,
                                 r->memory_limit, r->config, (Py_ssize_t)r->config_len, r->tools,
                                 (Py_ssize_t)r->tools_len, r->tool_calls, r->tool_argument);
}

/* Runs the request that the host wrote at `request`, which came from guest_alloc and is freed here. The answer
 * is at the returned address. */
CM_EXPORT("guest_execute") void *cm_guest_execute(char *request, uint32_t len)
{
    struct request r = {0};
    answer.len = 0;
    bool understood = get_request(request, len, &r);
    cm_fs_limit(r.files_max, r.file_bytes_max);
    heap_reserve_take();
    cm_calls_begin(r.tool_calls, r.tool_argument);
    cm_content_begin(r.length);
    PyObject *t = understood ? call_driver(&r) : NULL;
    free(request);
    cm_calls_end();
    if (!t || !put_answer(t))
        put_failure();
    Py_XDECREF(t);
    PyErr_Clear();
    uint64_t memory = (uint64_t)__builtin_wasm_memory_size(0) << 16;
    put_bytes(TAG_PEAK_MEMORY, &memory, sizeof memory);
    return &answer;
}

/* ---- the driver's module */

static PyObject *py_take_deadlock(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyBool_FromLong(cm_sched_take_deadlock());
}

static PyObject *py_memory(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyLong_FromUnsignedLongLong((unsigned long long)__builtin_wasm_memory_size(0) << 16);
}

static PyObject *py_release_reserve(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    heap_reserve_release();
    Py_RETURN_NONE;
}

static PyObject *py_failed_at(PyObject *self, PyObject *unused)
{
    struct heap_place at = heap_failed_at();

    (void)self, (void)unused;
    return at.cell > 0 ? Py_BuildValue("(ii)", at.cell, at.line) : Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    {"take_deadlock", py_take_deadlock, METH_NOARGS,
     "True once after the scheduler woke the main thread because no thread could ever run again."},
    {"release_reserve", py_release_reserve, METH_NOARGS,
     "Gives back the memory that was kept from user code, so that a session at its limit can still answer."},
    {"failed_at", py_failed_at, METH_NOARGS,
     "(cell, line) of the code that ran when memory was last asked for in vain, or None."},
    {"memory", py_memory, METH_NOARGS, "Bytes of linear memory in use."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_codemode", .m_size = -1, .m_methods = methods};

static PyObject *init_module(void)
{
    PyObject *m = PyModule_Create(&module);
    if (m && (cm_calls_init(m) || cm_content_init(m)))
        Py_CLEAR(m);
    return m;
}

/* ---- start */

static int failed(const char *what)
{
    PyErr_Print();
    fprintf(stderr, "guest: %s failed\n", what);
    return 1;
}

static PyStatus configure(PyConfig *c)
{
    PyConfig_InitIsolatedConfig(c);
    c->site_import = 1;
    c->write_bytecode = 0;
    c->install_signal_handlers = 0;
    c->use_hash_seed = 1; /* the image is the same for all sessions, and its hashes with it */
    c->hash_seed = 0;
    c->module_search_paths_set = 1;
    c->cpu_count = 32; /* the width of default thread pools; calls to the host overlap, computing does not */
    PyStatus s = PyWideStringList_Append(&c->module_search_paths, STDLIB);
    if (!PyStatus_Exception(s))
        s = PyConfig_SetString(c, &c->home, L"/usr");
    if (!PyStatus_Exception(s))
        s = PyConfig_SetString(c, &c->stdlib_dir, STDLIB);
    if (!PyStatus_Exception(s))
        s = PyConfig_SetString(c, &c->program_name, L"python3");
    if (!PyStatus_Exception(s))
        s = PyConfig_SetString(c, &c->executable, L"");
    return s;
}

static PyObject *driver_function(PyObject *driver, const char *name)
{
    PyObject *f = driver ? PyObject_GetAttrString(driver, name) : NULL;
    if (!f)
        failed(name);
    return f;
}

CM_EXPORT("guest_mount") int cm_guest_mount(const char *tar, uint32_t len)
{
    int rc = cm_fs_mount(tar, len);
    static const char *const dirs[] = {"/home", HOME_DIR, "/tmp", "/dev"};
    for (unsigned i = 0; !rc && i < sizeof dirs / sizeof *dirs; i++)
        rc = cm_fs_mkdir(cm_fs_root(), dirs[i], strlen(dirs[i]));
    if (!rc)
        rc = cm_fs_mkdevice("/dev/null", false);
    if (!rc) /* SQLite seeds itself from there, or else from the time, which sessions share */
        rc = cm_fs_mkdevice("/dev/urandom", true);
    if (!rc)
        rc = cm_fs_mkdevice("/dev/random", true);
    cm_fs_count_from_here();
    return rc;
}

CM_EXPORT("guest_init") int cm_guest_init(void)
{
    if (chdir(HOME_DIR))
        return failed("chdir");
    PyImport_AppendInittab("_codemode", init_module);
    PyConfig config;
    PyStatus s = configure(&config);
    if (!PyStatus_Exception(s))
        s = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_Exception(s))
        return fprintf(stderr, "guest: %s\n", s.err_msg ? s.err_msg : "initialisation failed"), 1;
    PyObject *driver = PyImport_ImportModule("codemode_driver");
    driver_execute = driver_function(driver, "execute");
    driver_put = driver_function(driver, "put");
    driver_reseed = driver_function(driver, "reseed");
    PyObject *warm = driver_function(driver, "warm");
    if (!driver_execute || !driver_put || !driver_reseed || !warm)
        return 1;
    PyObject *done = PyObject_CallNoArgs(warm);
    Py_DECREF(warm);
    if (!done)
        return failed("warm");
    Py_DECREF(done);
    return 0;
}

CM_EXPORT("guest_seal") int cm_guest_seal(void)
{
    PyGC_Collect();
    return heap_seal() ? failed("seal") : 0;
}

/* First call of every session: nothing random may be shared with its siblings. */
CM_EXPORT("guest_start") int cm_guest_start(void)
{
    PyObject *done = PyObject_CallNoArgs(driver_reseed);
    if (!done)
        return failed("reseed");
    Py_DECREF(done);
    return answer_room(FAILURE_MAX) ? 0 : failed("start"); /* so that put_failure() never needs memory */
}
