/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/lines.h"

static void knows_when_a_line_is_whole(void **state)
{
    static const char *const whole[] = {
        "x = 1\n",
        "\n",
        "print('a:')\n",
        "x = {'a': 1}\n",
        "'''a\nb'''\n",
        "f(1,\n2)\n",
        "x = 'unfinished\n",
        "# if x:\n",
        "iffy = 3\n",
        "if x:\n    y\n\n",
        "def f():\n  return 1\n  \n",
        "@d\ndef f(): pass\n\n",
        "x = 1 + \\\n2\n",
        "a)\n",
        "x = '\\''\n",
        "s = \"#\" # comment:\n",
        "",
    };
    static const char *const open[] = {
        "if x:\n",
        "if x:\n    y\n",
        "for i in x: pass\n",
        "while True: pass\n",
        "def f():\n",
        "@decorator\n",
        "f(1,\n",
        "[\n\n",
        "x = '''a\n",
        "x = \"\"\"a\n\n",
        "x = 1 + \\\n",
        "match x:\n",
        "async def f():\n",
        "try:\n  f()\n",
        "class A: # comment\n",
        "if x:\n  y = '''\n\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
        if (cm_cli_needs_more(whole[i], strlen(whole[i])))
            fail_msg("waits for more: %s", whole[i]);
    for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++)
        if (!cm_cli_needs_more(open[i], strlen(open[i])))
            fail_msg("does not wait: %s", open[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(knows_when_a_line_is_whole)};

    return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
