/* SPDX-License-Identifier: Apache-2.0 */
#include "base/names.h"

#include <string.h>

#include "base/utf8.h"

/* Of CPython 3.13. Its soft keywords (match, type, ...) are names, too. */
static const char *const keywords[] = {
    "False", "None",     "True",  "and",    "as",   "assert", "async",  "await",    "break",
    "class", "continue", "def",   "del",    "elif", "else",   "except", "finally",  "for",
    "from",  "global",   "if",    "import", "in",   "is",     "lambda", "nonlocal", "not",
    "or",    "pass",     "raise", "return", "try",  "while",  "with",   "yield",
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool cm_name_has(char c)
{
    char small = (char)(c | 0x20);

    return c == '_' || is_digit(c) || (small >= 'a' && small <= 'z') || (unsigned char)c >= 0x80;
}

static bool is_keyword(const char *text, size_t len)
{
    for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++)
        if (strlen(keywords[i]) == len && memcmp(keywords[i], text, len) == 0)
            return true;
    return false;
}

bool cm_name_is_variable(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!cm_name_has(text[i]))
            return false;
    return len > 0 && !is_digit(text[0]) && !is_keyword(text, len) && cm_utf8_valid(text, len);
}
