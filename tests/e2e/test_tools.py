# SPDX-License-Identifier: Apache-2.0
"""Tools of an application, called by code in the sandbox: the real service, grpcio's, on the other side."""

import socket
import threading

import pytest

import application
from support import PATIENCE, Background, eventually, free_port, running_sidecar

KEY = "key-of-both-sides"


@pytest.fixture(scope="module")
def app():
    with application.running(application.standard(key=KEY)) as app:
        yield app


@pytest.fixture(scope="module")
def sidecar(app):
    with running_sidecar(CODEMODE_MAIN_APP_TARGET=app.target, CODEMODE_API_KEY=KEY, TOOL_RESULT_LIMIT="1Mi") as server:
        yield server
        server.check_clean()


@pytest.fixture
def session(sidecar):
    made = sidecar.create()
    yield made
    made.delete()


def ok(sidecar, code, **body):
    reply = sidecar.execute(code, **body)
    assert reply["success"], (reply["error"], reply["traceback"], reply["stderr"])
    return reply["result"]


def fails(sidecar, code, *words, **body):
    reply = sidecar.execute(code, **body)
    assert reply["success"] is False and reply["error_type"] == "RuntimeError", reply
    for word in words:
        assert word in reply["error"], reply["error"]
    return reply["error"]


# --- what comes back


def test_a_blocking_tool(sidecar):
    assert ok(sidecar, "tools['get_weather'].run(city='Rome')['temperature']") == "72"
    assert ok(sidecar, "type(tools['get_weather'].run(city='Rome')['temperature']).__name__") == "'int'"


def test_an_async_tool(sidecar):
    code = "import asyncio\nasync def main():\n    return (await tools['query_database'].run(sql='q'))['rows'][1]['name']\n"
    assert ok(sidecar, code + "result = asyncio.run(main())") == "Bob"
    assert ok(sidecar, "(await tools['query_database'].run(sql='q'))['sql']") == "'q'"


def test_values_survive_the_way(sidecar):
    value = "{'i': 72, 'f': 1.5, 'n': None, 'b': [True, False], 's': 'é\\n\"😀', 'd': {'x': {}}, 'big': 2**53}"
    assert ok(sidecar, f"v = {value}\nresult = tools['echo'].run(**v) == v") == "True"
    assert ok(sidecar, "tools['answer'].run()") == "{'value': 42}"


def test_the_context_goes_with_every_call(sidecar, app):
    code = "tools['get_weather'].run(city='Rome')['context']"
    # Sorted, for the maps of a message have no order.
    assert ok(sidecar, f"sorted({code}.items())", context={"user": "u1", "n": 5}) == "[('n', 5), ('user', 'u1')]"
    assert ok(sidecar, code) is None
    code = "tools['get_weather'].run_with_context({'n': 6, 'm': 7}, city='Rome')['context']"
    assert ok(sidecar, f"sorted({code}.items())", context={"user": "u1", "n": 5}) == "[('m', 7), ('n', 6), ('user', 'u1')]"


def test_the_application_learns_whose_call_it_is(sidecar, app):
    answer = sidecar.request(
        "POST", "/execute", json={"code": "tools['echo'].run(); tools['echo'].run()"}, headers={"x-correlation-id": "cm-77"}
    )
    assert answer.json()["success"] and answer.json()["correlation_id"] == "cm-77"
    call = app.last("echo")
    assert call.correlation_id == "cm-77" and call.metadata["x-correlation-id"] == "cm-77"
    assert call.metadata["x-codemode-call"].startswith("cm-77.") and call.metadata["x-codemode-call"].endswith(":2")


def test_agents(sidecar):
    assert ok(sidecar, "agents['writer'].execute_task('a poem')['task']") == "{'task': 'a poem'}"


def test_sessions_have_tools_too(session):
    session.ok("def temperature(city):\n    return tools['get_weather'].run(city=city)['temperature']")
    assert session.value("temperature('Rome')") == "72"
    assert session.value("temperature(city='Bonn') + 1") == "73"


# --- what goes wrong


def test_an_error_of_the_tool_can_be_caught(sidecar):
    code = "try:\n    tools['fail'].run(x=1)\nexcept RuntimeError as e:\n    result = (e.tool, 'no luck' in str(e))"
    assert ok(sidecar, code) == "('fail', True)"
    fails(sidecar, "tools['fail'].run()", "fail", "no luck with {}")


def test_wrong_arguments_never_reach_the_service(sidecar, app):
    before = app.count("get_weather")
    fails(sidecar, "tools['get_weather'].run()", "argument 'city' is missing, wanted a string")
    fails(sidecar, "tools['get_weather'].run(city=5)", "argument 'city': is 5, wanted a string")
    fails(sidecar, "tools['get_weather'].run(citty='Rome')", "unknown argument 'citty'; did you mean 'city'?")
    fails(sidecar, "tools['get_weather'].run(city='Rome', days=99)", "argument 'days': is 99, must be at most 14")
    assert app.count("get_weather") == before


def test_only_available_tools_can_be_called(sidecar, app):
    before = app.count("echo")
    assert ok(sidecar, "sorted(tools)", available_tools=["get_weather", "count"]) == "['count', 'get_weather']"
    fails(sidecar, "tools['echo'].run()", "echo", available_tools=["get_weather"])
    # whatever the guest's own objects say: a call of another name is refused outside
    forged = (
        "t = tools['get_weather']\n"
        "forged = type(t)(t._catalog, 'echo', 0)\n"
        "forged.run()"
    )
    fails(sidecar, forged, "not one of the execution's available_tools", available_tools=["get_weather"])
    assert app.count("echo") == before
    assert "echo" not in ok(sidecar, "str(tools['__list__'].run())", available_tools=["get_weather"])
    assert ok(sidecar, "tools['__search__'].run(query='told')['count']", available_tools=["get_weather"]) == "0"


def test_a_named_tool_that_is_not_listed_ends_the_run(sidecar):
    error = fails(sidecar, "print('ran')", "'get_wether'", "did you mean 'get_weather'?", available_tools=["get_wether"])
    assert "ran" not in error


def test_an_unknown_name_is_a_key_error(sidecar):
    assert ok(sidecar, "try:\n    tools['nothing']\nexcept KeyError:\n    result = 'key'") == "key"


def test_a_result_beyond_the_limit(sidecar):
    fails(sidecar, "tools['big'].run(bytes=2_000_000)", "tool_result")
    assert ok(sidecar, "len(tools['big'].run(bytes=500_000)['text'])") == "500000"


# --- questions


def test_the_list_and_schemas(sidecar, app):
    code = "l = tools['__list__'].run()\nresult = [l['count'] == len(l['tools']), sorted(l['tools'][0])]"
    names = ["description", "has_context", "has_input_schema", "has_output_schema", "is_async", "name"]
    assert ok(sidecar, code) == str([True, names])
    assert ok(sidecar, "tools['__schema__'].run(name='get_weather')['input_schema']['required']") == "['city']"
    assert ok(sidecar, "tools['__schema__'].run(tool_name='echo')['is_async']") == "False"
    fails(sidecar, "tools['__schema__'].run(name='nothing')", "nothing", "'get_weather'")
    assert ok(sidecar, "tools['__schema__'].run(name='late_schema')['input_schema']") == "{'required': ['x']}"
    asked = app.asked
    fails(sidecar, "tools['late_schema'].run()", "argument 'x' is missing")
    assert app.asked == asked


def test_the_search(sidecar):
    assert ok(sidecar, "[t['name'] for t in tools['__search__'].run(query='weather in a city')['tools']][0]") == "'get_weather'"
    assert ok(sidecar, "tools['__search__'].run(query='SQL', limit=1)['tools'][0]['is_async']") == "True"


# --- at the same time


def test_async_calls_overlap(sidecar):
    code = (
        "import asyncio\n"
        "async def main():\n"
        "    return await asyncio.gather(tools['meet_async'].run(), tools['meet_async'].run())\n"
        "result = asyncio.run(main())"
    )
    assert ok(sidecar, code) == "[{'met': True}, {'met': True}]"


def test_blocking_calls_in_threads_overlap(sidecar):
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(2) as pool:\n"
        "    result = list(pool.map(lambda _: tools['meet'].run(), range(2)))"
    )
    assert ok(sidecar, code) == "[{'met': True}, {'met': True}]"


def test_two_hundred_calls_from_fifty_sessions(sidecar, app):
    app.meeting = threading.Barrier(200)
    code = "import asyncio\nresult = len(await asyncio.gather(*(tools['meet_async'].run() for _ in range(4))))\nresult"
    try:
        sessions = [sidecar.create() for _ in range(50)]
        calls = [session.in_background(code) for session in sessions]
        for call in calls:
            assert call.result().json()["result"] == "4"
        for session in sessions:
            session.delete()
    finally:
        app.meeting = threading.Barrier(2)


# --- the end of a call


def test_a_timeout_cancels_the_call(sidecar, app):
    reply = sidecar.execute("tools['hang'].run()", timeout=0.5)
    assert reply["timed_out"] and reply["error_type"] == "Timeout"
    assert app.last("hang").cancelled.wait(10 * PATIENCE)


def test_an_interrupt_cancels_the_call(sidecar, session, app):
    before = app.count("hang")
    run = session.in_background("tools['hang'].run()")
    eventually(lambda: app.count("hang") > before, "the tool is called")
    sidecar.request("POST", session.path + "/interrupt")
    reply = run.result().json()
    assert reply["success"] is False and reply["state"] == "kept"
    assert app.last("hang").cancelled.wait(10 * PATIENCE)
    assert session.value("tools['answer'].run()['value']") == "42"


def test_a_client_that_leaves_cancels_the_call(sidecar, app):
    before = app.count("hang")
    body = b"""{"code": "tools['hang'].run()"}"""
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=20 * PATIENCE) as sock:
        head = b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\n" % KEY.encode()
        sock.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: app.count("hang") == before + 1, "the tool is called")
    assert app.last("hang").cancelled.wait(10 * PATIENCE)


# --- config and the short list of error types


def test_config_and_error_types(sidecar):
    assert ok(sidecar, "config['retries'] + 1", config={"retries": 2}) == "3"
    for code, kind in (
        ("1/0", "ZeroDivisionError"),
        ("import nothing", "ImportError"),
        ("{}['x']", "KeyError"),
        ("open('/nothing')", "Unknown"),
        ("def", "SyntaxError"),
        ("x", "NameError"),
    ):
        reply = sidecar.execute(code)
        assert reply["error_type"] == kind and reply["duration_ms"] >= 0 and reply["correlation_id"], reply


def test_metrics_tell_of_the_service(sidecar):
    ok(sidecar, "tools['answer'].run()")
    assert sidecar.metric("codemode_tool_service_up") == 1


def test_execute_in_a_session(sidecar, session):
    session.ok("x = 41")
    answer = sidecar.request("POST", "/execute", json={"code": "result = x + 1"}, headers={"x-session-id": session.id})
    assert answer.json()["result"] == "42" and answer.json()["session_id"] == session.id
    assert session.value("result") == "42"
    gone = sidecar.request("POST", "/execute", json={"code": "1"}, headers={"x-session-id": "session-none"})
    assert gone.status_code == 404
    long = sidecar.request("POST", "/execute", json={"code": "1"}, headers={"x-session-id": "s" * 100})
    assert long.status_code == 404


def test_bad_members_are_named(sidecar):
    for body, word in (
        ({"available_tools": "x"}, "available_tools"),
        ({"available_tools": ["a", 1]}, "available_tools"),
        ({"config": []}, "config"),
        ({"correlation_id": 5}, "correlation_id"),
    ):
        answer = sidecar.request("POST", "/execute", json={"code": "1", **body})
        assert answer.status_code == 422 and answer.json()["detail"].startswith(word), answer.text
    answer = sidecar.request("POST", "/execute", json={"code": "1"}, headers={"Idempotency-Key": "x" * 256})
    assert answer.status_code == 400


# --- a service that is not there


def test_a_service_that_comes_late_and_goes_and_comes_back():
    app = application.standard(port=free_port())
    with running_sidecar(CODEMODE_MAIN_APP_TARGET=app.target) as server:
        assert ok(server, "1 + 1") == "2"
        error = fails(server, "1", "cannot be reached", "CODEMODE_MAIN_APP_TARGET", available_tools=["answer"])
        assert app.target in error
        assert ok(server, "[tools := 1][0]") == "1"  # a name like another
        assert server.metric("codemode_tool_service_up") == 0
        error = server.execute("tools['answer']")["error"]
        assert "ToolUnavailable" in error and "cannot be reached" in error, error
        app.start()
        eventually(lambda: server.execute("1", available_tools=["answer"])["success"], "the service is found", 15)
        assert ok(server, "tools['answer'].run()['value']") == "42"
        assert server.metric("codemode_tool_service_up") == 1
        app.stop()
        # a call waits a little for an application that is being restarted
        answer = Background(lambda: ok(server, "tools['answer'].run()['value']"))
        eventually(lambda: server.metric("codemode_tool_calls_running") == 1, "the call waits")
        app.start()
        assert answer.result() == "42"
        app.stop()
        fails(server, "tools['answer'].run()", "cannot be reached")
        assert server.metric("codemode_tool_list_failures_total") >= 1


def test_no_service_at_all():
    with running_sidecar(CODEMODE_MAIN_APP_TARGET="none") as server:
        assert ok(server, "1 + 1") == "2"
        fails(server, "1", "no tool service is configured", available_tools=["answer"])


def test_another_key(app):
    with running_sidecar(CODEMODE_MAIN_APP_TARGET=app.target) as server:
        fails(server, "1", "CODEMODE_API_KEY must be the same on both sides", available_tools=["answer"])
