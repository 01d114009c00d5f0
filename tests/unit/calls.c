/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of tools by the real guest: this program is its gateway. What a tool does, its name says: see on_call(). */
#include "guest_run.h"

enum { PENDING_MAX = 600 };

static struct pending {
    uint32_t number;
    uint64_t due_ns;
    char fields[512]; /* of the ANSWER frame, when there is no large one */
    uint32_t len;
    uint32_t large; /* bytes of a string that is the result */
} pending[PENDING_MAX];
static unsigned calls_made, cancels, most_at_once;
static struct pending taken;
static char last_context[100], last_arguments[5000];
static uint64_t last_timeout;

static void add_field(struct pending *p, enum cm_ipc_field tag, const void *data, uint32_t len)
{
    p->fields[p->len] = (char)tag;
    memcpy(p->fields + p->len + 1, &len, 4);
    memcpy(p->fields + p->len + 5, data, len);
    p->len += 5 + len;
}

static struct pending *find(uint32_t number)
{
    for (unsigned i = 0; i < PENDING_MAX; i++)
        if (pending[i].number == number)
            return &pending[i];
    return NULL;
}

static void copy_field(const struct cm_ipc_fields *f, enum cm_ipc_field tag, char *to, size_t size)
{
    size_t len;
    const char *data = cm_ipc_get_bytes(f, tag, &len);
    snprintf(to, size, "%.*s", (int)len, data ? data : "");
}

/* echo: the arguments, at once; slow, aslow: after 50 ms; never: no answer; large: a string of a mebibyte, huge: of
 * 16; fail, failN: a failure. */
static void on_call(const struct cm_ipc_fields *f)
{
    struct pending *p = find(0);
    char name[50];
    uint8_t yes = 1, no = 0;
    CHECK(p);
    copy_field(f, CM_FIELD_NAME, name, sizeof name);
    copy_field(f, CM_FIELD_ARGUMENTS, last_arguments, sizeof last_arguments);
    copy_field(f, CM_FIELD_CONTEXT, last_context, sizeof last_context);
    last_timeout = cm_ipc_get_uint(f, CM_FIELD_CALL_TIMEOUT, 0);
    *p = (struct pending){.number = (uint32_t)cm_ipc_get_uint(f, CM_FIELD_CALL, 0), .due_ns = 1};
    calls_made++;
    bool fails = !strncmp(name, "fail", 4);
    uint8_t why = fails ? (uint8_t)atoi(name + 4) : 0;
    add_field(p, CM_FIELD_SUCCESS, fails ? &no : &yes, 1);
    if (fails)
        add_field(p, CM_FIELD_FAILURE, &why, 1);
    add_field(p, fails ? CM_FIELD_ERROR : CM_FIELD_DATA, fails ? "it is broken" : last_arguments,
              (uint32_t)(fails ? 12 : strnlen(last_arguments, 200)));
    if (strstr(name, "slow"))
        p->due_ns = cm_clock_ns() + 50000000;
    if (!strcmp(name, "never") || !strcmp(name, "anever"))
        p->due_ns = UINT64_MAX;
    p->large = !strcmp(name, "large") ? 1u << 20 : !strcmp(name, "huge") ? 16u << 20 : 0;
    unsigned now = 0;
    for (unsigned i = 0; i < PENDING_MAX; i++)
        now += pending[i].number != 0;
    most_at_once = now > most_at_once ? now : most_at_once;
}

static void take(void)
{
    char *to = cm_state.ask_at ? cm_guest_memory(cm_state.ask_at, cm_state.answer_len) : NULL;
    cm_state.answer_number = 0;
    if (!to)
        return;
    if (!taken.large) {
        memcpy(to, taken.fields, taken.len);
        return;
    }
    uint32_t len = taken.large;
    memcpy(to, "\x0c\x01\0\0\0\x01\x0b", 7);
    memcpy(to + 7, &len, 4);
    memset(to + 11, 'x', len);
    to[11] = to[10 + len] = '"';
}

static void ask(void)
{
    struct cm_ipc_fields f;
    if (cm_state.ask == CM_ASK_TAKE) {
        take();
        return;
    }
    const void *fields = cm_guest_memory(cm_state.ask_at, cm_state.ask_len);
    CHECK(fields && !cm_ipc_fields_get(fields, cm_state.ask_len, &f, NULL));
    if (cm_state.ask == CM_ASK_CALL) {
        on_call(&f);
        return;
    }
    struct pending *p = find((uint32_t)cm_ipc_get_uint(&f, CM_FIELD_CALL, 0));
    if (p)
        p->number = 0;
    cancels++;
}

static bool look(void)
{
    uint64_t now = cm_clock_ns();
    for (unsigned i = 0; !cm_state.answer_number && i < PENDING_MAX; i++)
        if (pending[i].number && pending[i].due_ns <= now) {
            taken = pending[i];
            cm_state.answer_number = taken.number;
            cm_state.answer_len = taken.large ? taken.large + 11 : taken.len;
            pending[i].number = 0;
        }
    return cm_state.answer_number != 0;
}

static void open_world(uint64_t limit)
{
    map(limit);
    in_ask = ask;
    in_wait = look;
    tool_list = "[[\"echo\",0],[\"slow\",0],[\"never\",0],[\"large\",0],[\"huge\",0],[\"fail0\",0],[\"fail4\",0],"
                "[\"aecho\",1],[\"aslow\",1],[\"anever\",1]]";
    CHECK(gives("1 + 1", "2"));
}

/* What the code prints to itself: a difference in time. */
#define TIMED(code) "import time\nt = time.monotonic()\n" code "\nt = time.monotonic() - t\n"

static void call_and_answer(void)
{
    open_world(256 * MIB);
    CHECK(gives("tools['echo'].run(a=1, b=[2, {'c': None}])", "{'a': 1, 'b': [2, {'c': None}]}"));
    CHECK(!strcmp(last_arguments, "{\"a\":1,\"b\":[2,{\"c\":null}]}") && !*last_context && !last_timeout);
    CHECK(gives("tools.echo(t=('x',)), echo(), sorted(tools)[:2]", "({'t': ['x']}, {}, ['aecho', 'anever'])"));
    CHECK(gives("tools['echo'].run_with_context({'user': 7}, x=1)['x']", "1") && !strcmp(last_context, "{\"user\":7}"));
    CHECK(gives("echo.with_timeout(1.5).run()", "{}") && last_timeout == 1500);
    CHECK(raises("fail0()", "ToolError") && raises("fail4()", "ToolTimeout"));
    CHECK(raises("tools['ecko']", "UnknownTool"));
    CHECK(raises("echo(a='x' * 5000)", "ToolLimitError"));
    unsigned before = calls_made;
    CHECK(raises("for i in range(501): echo(i=i)", "ToolLimitError") && calls_made == before + 500);
    CHECK(gives("try:\n    fail0()\nexcept RuntimeError as e:\n    print(e)\nlocals().keys() & {'echo', 'tools'}",
                "set()"));
    CHECK(!strncmp(printed, "tools['fail0']: it is broken\n", printed_len));
}

static void on_turn(int signal)
{
    (void)signal;
    cm_guest_nudge();
}

static void threads_overlap(void)
{
    struct sigaction act = {.sa_handler = on_turn, .sa_flags = SA_ONSTACK | SA_RESTART};
    const struct itimerval every = {{0, 2000}, {0, 2000}};
    open_world(256 * MIB);
    sigaction(SIGALRM, &act, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    CHECK(gives("from concurrent.futures import ThreadPoolExecutor\n" TIMED(
                    "with ThreadPoolExecutor(20) as pool:\n"
                    "    out = list(pool.map(lambda i: slow(i=i)['i'], range(20)))") "out == list(range(20)), t < 0.5",
                "(True, True)"));
    CHECK(most_at_once == 20);
    /* One who computes does not keep an answer from one who waits. */
    CHECK(gives("import threading\nstop = False\n"
                "def compute():\n    while not stop: pass\n"
                "thread = threading.Thread(target=compute); thread.start()\n" TIMED("slow()") "stop = True\n"
                                                                                              "thread.join(); t < 0.4",
                "True"));
}

static void tasks_overlap(void)
{
    open_world(256 * MIB);
    CHECK(gives(
        "import asyncio\n" TIMED(
            "out = await asyncio.gather(*[tools['aslow'].run(i=i) for i in range(400)])") "[o['i'] for o in out] == "
                                                                                          "list(range(400)), t < 2",
        "(True, True)"));
    CHECK(most_at_once == 256);
    CHECK(gives("async def main():\n    return await tools.aecho(a=1)\nasyncio.run(main())", "{'a': 1}"));
    CHECK(gives("async with asyncio.TaskGroup() as g:\n    a = g.create_task(aslow.run(x=1))\n"
                "    b = g.create_task(asyncio.to_thread(slow, x=2))\na.result(), b.result()",
                "({'x': 1}, {'x': 2})"));
    CHECK(gives("while_waiting = 0\ntask = asyncio.create_task(aslow())\n"
                "while not task.done():\n    await asyncio.sleep(0); while_waiting += 1\nwhile_waiting > 10",
                "True"));
    unsigned before = cancels;
    CHECK(raises("await asyncio.wait_for(anever(), 0.02)", "TimeoutError") && cancels == before + 1);
    CHECK(gives("await aecho(x=3)", "{'x': 3}"));
}

static void on_alarm(int signal)
{
    (void)signal;
    cm_guest_interrupt();
}

static void interrupt_ends_a_wait(void)
{
    static const char *const codes[] = {
        "never()", "await anever()",
        "import threading\nt = threading.Thread(target=echo); t.start(); t.join()\nnever()"};
    open_world(256 * MIB);
    struct sigaction act = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigaction(SIGALRM, &act, NULL);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        const struct itimerval t = {{0, 0}, {0, 30000}};
        setitimer(ITIMER_REAL, &t, NULL);
        CHECK(raises(codes[i], "KeyboardInterrupt"));
        CHECK(cancels == i + 1);
        cm_guest_clear_interrupt();
        CHECK(gives("echo(a=1)", "{'a': 1}"));
    }
}

/* A thread that is left over learns that its execution is over; the numbers begin anew. */
static void left_over_threads(void)
{
    open_world(256 * MIB);
    CHECK(gives("import threading\ntold = []\n"
                "def wait():\n    try:\n        never()\n    except ToolError as e:\n        told.append(str(e))\n"
                "t = threading.Thread(target=wait); t.start()\nimport time; time.sleep(0.01); told",
                "[]"));
    memset(pending, 0, sizeof pending); /* as the gateway does */
    CHECK(gives("t.join(); told", "[\"tools['never']: its execution has ended\"]"));
    CHECK(gives("echo(a=2)", "{'a': 2}"));
}

static void large_results(void)
{
    open_world(image.memory_size + 32 * MIB);
    CHECK(gives("len(large())", "1048574"));
    CHECK(raises("keep = bytearray(20 << 20)\nhuge()", "MemoryError"));
    CHECK(gives("keep = None\necho(a=3)", "{'a': 3}"));
}

static void deadlock_is_found_all_the_same(void)
{
    open_world(256 * MIB);
    CHECK(gives("import threading\nlock = threading.Lock(); lock.acquire(); slow()", "{}"));
    CHECK(raises("lock.acquire()", "RuntimeError"));
}

static int frozen_fd;

static void freeze_in_a_call(void)
{
    struct cm_err err;
    uint32_t at;
    enum cm_guest_event event;
    open_world(256 * MIB);
    begin("slow(a=5), [slow(a=i)['a'] for i in range(3)]");
    while ((event = cm_guest_run(&at)) == CM_GUEST_ASKS) {
        ask();
        cm_guest_resume(0);
    }
    CHECK(event == CM_GUEST_WAITS && cm_guest_calling());
    CHECK(!cm_image_freeze(frozen_fd, &image, &err));
}

static void thaw_in_a_call(void)
{
    struct cm_ipc_fields f;
    struct cm_err err;
    uint32_t at;
    CHECK(!cm_image_map(&image, 256 * MIB, &err) && !cm_image_thaw(frozen_fd, &err));
    in_ask = ask;
    in_wait = look;
    pending[0] = (struct pending){.number = 1};
    add_field(&pending[0], CM_FIELD_SUCCESS, "\1", 1);
    add_field(&pending[0], CM_FIELD_DATA, "7", 1);
    CHECK(look());
    cm_guest_resume(CM_WAIT_ANSWER);
    CHECK(go_on(&at) == CM_GUEST_FINISHED);
    answer(at, &f);
    CHECK(field_is(&f, CM_FIELD_RESULT, "(7, [0, 1, 2])"));
}

/* ---- the tests */

#define TEST(body)                                                                                                     \
    static void test_##body(void **state)                                                                              \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        assert_int_equal(in_child(body), 0);                                                                           \
    }

TEST(call_and_answer)
TEST(threads_overlap)
TEST(tasks_overlap)
TEST(interrupt_ends_a_wait)
TEST(left_over_threads)
TEST(large_results)
TEST(deadlock_is_found_all_the_same)

static void test_freezing_in_a_call(void **state)
{
    (void)state;
    frozen_fd = memfd_create("frozen", MFD_CLOEXEC);
    assert_int_equal(in_child(freeze_in_a_call), 0);
    assert_int_equal(in_child(thaw_in_a_call), 0);
    close(frozen_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call_and_answer),
        cmocka_unit_test(test_threads_overlap),
        cmocka_unit_test(test_tasks_overlap),
        cmocka_unit_test(test_interrupt_ends_a_wait),
        cmocka_unit_test(test_left_over_threads),
        cmocka_unit_test(test_large_results),
        cmocka_unit_test(test_deadlock_is_found_all_the_same),
        cmocka_unit_test(test_freezing_in_a_call),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
