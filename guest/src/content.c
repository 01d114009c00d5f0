/* SPDX-License-Identifier: Apache-2.0 */
/* A value of many megabytes shall cost the session little more than itself.
 *
 * Bytes, and text that is ASCII, are read to where they stay: the new object's own memory. Other text is read to the
 * same place as it is, and looked at meanwhile: the number of its characters and the widest of them make the str's size,
 * to which it is decoded piece by piece. So beside the str there is the UTF-8 and nothing else, and that is freed.
 *
 * No Python code runs between two reads, so no other thread of the session does.
 */
#define PY_SSIZE_T_CLEAN
#include "content.h"

#include <stdbool.h>
#include <string.h>

#include "host.h"

enum { PIECE = 256 << 10 }; /* bytes that stay in the processor's caches between two looks at them */

static uint64_t left;

void cm_content_begin(uint64_t len)
{
    left = len;
}

struct tally {
    Py_ssize_t chars;  /* of which each has one byte that continues none */
    unsigned char top; /* the largest byte: of UTF-8, it begins the widest character */
};

static bool is_ascii(const unsigned char *at, size_t len)
{
    uint64_t all = 0, some;
    size_t i = 0;
    for (; i + sizeof some <= len; i += sizeof some) {
        memcpy(&some, at + i, sizeof some);
        all |= some;
    }
    for (; i < len; i++)
        all |= at[i];
    return !(all & 0x8080808080808080u);
}

static void look(struct tally *t, const unsigned char *at, size_t len)
{
    if (is_ascii(at, len)) {
        t->chars += (Py_ssize_t)len;
        return;
    }
    for (size_t i = 0; i < len; i++) {
        t->chars += (at[i] & 0xc0) != 0x80;
        t->top = at[i] > t->top ? at[i] : t->top;
    }
}

static void read_all(unsigned char *to, size_t len, struct tally *t)
{
    for (size_t at = 0, n; at < len; at += n) {
        n = len - at < PIECE ? len - at : PIECE;
        cm_host_call(CM_HOST_READ, to + at, n);
        if (t)
            look(t, to + at, n);
    }
}

/* Names the offset in all of the text instead of that in its piece. */
static PyObject *not_utf8(const unsigned char *text, size_t from)
{
    PyObject *error = PyErr_GetRaisedException();
    Py_ssize_t start = 0;
    bool known = PyErr_GivenExceptionMatches(error, PyExc_UnicodeDecodeError) &&
                 !PyUnicodeDecodeError_GetStart(error, &start);
    if (!known) {
        PyErr_Clear();
        PyErr_SetRaisedException(error);
        return NULL;
    }
    Py_DECREF(error);
    from += (size_t)start;
    return PyErr_Format(PyExc_ValueError, "the text is not UTF-8: byte 0x%02x at offset %zu", text[from], from);
}

/* Decodes a piece to its place in `whole`. Bytes used, or -1 with a Python error. */
static Py_ssize_t decode_piece(PyObject *whole, Py_ssize_t *at, const unsigned char *text, size_t from, size_t len)
{
    bool last = len - from <= PIECE;
    Py_ssize_t used = last ? (Py_ssize_t)(len - from) : PIECE;
    PyObject *piece = PyUnicode_DecodeUTF8Stateful((const char *)text + from, used, NULL, last ? NULL : &used);
    if (!piece) {
        not_utf8(text, from);
        return -1;
    }
    Py_ssize_t chars = PyUnicode_GET_LENGTH(piece);
    if (PyUnicode_CopyCharacters(whole, *at, piece, 0, chars) < 0)
        used = -1;
    Py_DECREF(piece);
    *at += chars;
    return used;
}

static PyObject *decode(const unsigned char *text, size_t len, const struct tally *t)
{
    PyObject *whole = PyUnicode_New(t->chars, t->top < 0xc4 ? 0xff : t->top < 0xf0 ? 0xffff : 0x10ffff);
    Py_ssize_t chars = 0, used = 0;
    for (size_t from = 0; whole && from < len; from += (size_t)used) {
        used = decode_piece(whole, &chars, text, from, len);
        if (used < 0)
            Py_CLEAR(whole);
    }
    return whole;
}

static PyObject *read_text(size_t len)
{
    struct tally t = {0, 0};
    PyObject *text = PyUnicode_New((Py_ssize_t)len, 127);
    if (!text || !len)
        return text;
    read_all(PyUnicode_1BYTE_DATA(text), len, &t);
    if (!t.top)
        return text;
    PyObject *whole = decode(PyUnicode_1BYTE_DATA(text), len, &t);
    Py_DECREF(text);
    return whole;
}

static PyObject *read_bytes(size_t len)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    if (bytes)
        read_all((unsigned char *)PyBytes_AS_STRING(bytes), len, NULL);
    return bytes;
}

static PyObject *py_content(PyObject *self, PyObject *is_text)
{
    uint64_t len = left;
    (void)self;
    left = 0; /* it can be read once */
    if (len >= PY_SSIZE_T_MAX)
        return PyErr_NoMemory();
    return is_text == Py_True ? read_text((size_t)len) : read_bytes((size_t)len);
}

static PyMethodDef functions[] = {
    {"content", py_content, METH_O,
     "content(is_text): the value that has come with the running LOAD, a str or bytes. ValueError when it is no text."},
    {NULL, NULL, 0, NULL},
};

int cm_content_init(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
