# SPDX-License-Identifier: Apache-2.0
"""Requests that are sent again do not run again, whatever happens to connections and servers."""

import json
import random
import socket
import threading
import time

import pytest

import application
from support import PATIENCE, eventually, running_sidecar


@pytest.fixture(scope="module")
def app():
    with application.running(application.standard(once=True)) as app:
        yield app


@pytest.fixture(scope="module")
def sidecar(app):
    with running_sidecar(CODEMODE_MAIN_APP_TARGET=app.target) as server:
        yield server
        server.check_clean()


def send(sidecar, code, **headers):
    return sidecar.request(
        "POST", "/execute", json={"code": code}, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


@pytest.mark.parametrize("header", ["x-correlation-id", "Idempotency-Key"])
def test_the_same_request_gets_the_same_answer(sidecar, app, header):
    before = app.count("count")
    code = "import random\ntools['count'].run()\nprint('hello')\nresult = random.random()"
    headers = {header: f"same-{header}"}
    first, second = send(sidecar, code, **headers), send(sidecar, code, **headers)
    assert "x-codemode-repeated" not in first.headers and second.headers["x-codemode-repeated"] == "true"
    a, b = first.json(), second.json()
    for changing in ("correlation_id",) if header == "Idempotency-Key" else ():
        a.pop(changing), b.pop(changing)
    assert a == b and a["stdout"] == "hello\n" and a["execution_id"].startswith("exec-")
    assert app.count("count") == before + 1
    other = send(sidecar, code + "  # another one", **headers)
    assert other.json()["result"] != a["result"] and app.count("count") == before + 2


def test_errors_are_remembered_as_well(sidecar, app):
    before = app.count("count")
    for _ in range(3):
        reply = send(sidecar, "tools['count'].run()\n1/0", x_correlation_id="an-error").json()
        assert reply["error_type"] == "ZeroDivisionError"
    assert app.count("count") == before + 1


def test_the_body_can_name_the_id_and_the_header_wins(sidecar, app):
    def ask(**headers):
        body = {"code": "tools['count'].run()", "correlation_id": "of-the-body"}
        return sidecar.request("POST", "/execute", json=body, headers=headers)

    before = app.count("count")
    assert ask().json()["correlation_id"] == "of-the-body"
    assert ask().headers["x-codemode-repeated"] == "true"
    assert ask(**{"x-correlation-id": "of-the-header"}).json()["correlation_id"] == "of-the-header"
    assert app.count("count") == before + 2


def test_in_a_session(sidecar, app):
    session = sidecar.create()
    session.ok("n = 0")
    path, body = session.path + "/execute", {"code": "n += 1\nn"}
    answers = [
        sidecar.request("POST", path, json=body, headers={"Idempotency-Key": "in-a-session"}).json() for _ in range(3)
    ]
    assert [answer["result"] for answer in answers] == ["1"] * 3
    assert session.value("n") == "1"
    assert session.run("n += 1\nn")["result"] == session.value("n") == "2"  # without an id it runs each time
    session.delete()


def test_a_second_request_joins_the_running_first(sidecar, app):
    app.meeting = threading.Barrier(2)
    before = app.count("meet")
    results = []

    def ask():
        results.append(send(sidecar, "result = tools['meet'].run()['met']", x_correlation_id="joined").json()["result"])
        sidecar.hang_up()

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    eventually(lambda: app.count("meet") > before, "the tool is called")
    app.meeting.wait(application.MEETING)
    for thread in threads:
        thread.join(30 * PATIENCE)
    assert results == ["True"] * 5 and app.count("meet") == before + 1


def cut(sidecar, body, headers, after):
    """Sends a request and breaks its connection some time later."""
    data = json.dumps(body).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    text = f"POST /execute HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=10 * PATIENCE) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset, not a goodbye
        sock.sendall((text + head + "\r\n").encode() + data)
        time.sleep(after)


def test_connections_that_break_at_any_moment(sidecar, app):
    """Each id counts once, however often its request was sent and wherever it broke."""
    dice = random.Random(4)
    ids = [f"cut-{n}" for n in range(60)]
    chunks = [ids[n::6] for n in range(6)]
    plans = {i: [dice.random() * 0.02 for _ in range(dice.randrange(1, 4))] for i in ids}
    wrong = []

    def work(mine):
        for i in mine:
            body, headers = {"code": f"result = tools['count'].run(id={i!r})['id']"}, {"Idempotency-Key": i}
            for after in plans[i]:
                cut(sidecar, body, headers, after)
            reply = sidecar.request("POST", "/execute", json=body, headers=headers).json()
            if reply.get("result") != i:
                wrong.append(reply)
        sidecar.hang_up()

    threads = [threading.Thread(target=work, args=(chunk,)) for chunk in chunks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60 * PATIENCE)
    assert not wrong, wrong[:3]
    with app.lock:
        seen = [call.arguments["id"] for call in app.calls if call.arguments.get("id", "").startswith("cut-")]
    assert sorted(seen) == sorted(ids)


def test_answers_that_found_no_room(app):
    with running_sidecar(CODEMODE_MAIN_APP_TARGET=app.target, KEPT_ANSWERS="1", KEPT_ANSWER_BYTES="64Ki") as server:
        before = app.count("count")
        assert send(server, "tools['count'].run()", x_correlation_id="a").json()["success"]
        assert send(server, "tools['count'].run()", x_correlation_id="b").json()["success"]
        again = send(server, "tools['count'].run()", x_correlation_id="a")
        assert again.status_code == 409 and again.json()["code"] == "answer_not_kept"
        assert send(server, "print('x' * 40000)", x_correlation_id="c").json()["success"]
        assert send(server, "print('x' * 40000)", x_correlation_id="c").status_code == 409
        assert app.count("count") == before + 2


def test_a_server_that_is_killed_and_its_successor(app):
    """A new server knows nothing of the old one's requests: there it is the application that sees the same call again,
    by the id that every call carries."""
    app.meeting = threading.Barrier(2)
    before = app.count("meet")
    code, headers = "result = tools['meet'].run()['met']", {"x_correlation_id": "killed"}
    with running_sidecar(CODEMODE_MAIN_APP_TARGET=app.target) as first:

        def ask():
            with pytest.raises(Exception):
                send(first, code, **headers)

        thread = threading.Thread(target=ask)
        thread.start()
        eventually(lambda: app.count("meet") > before, "the tool is called")
        first.process.kill()
        thread.join(30 * PATIENCE)
    app.meeting.wait(application.MEETING)  # the tool comes to its end all the same
    name = app.last("meet").metadata["x-codemode-call"]
    eventually(lambda: name in app.answered, "the tool has answered")
    with running_sidecar(CODEMODE_MAIN_APP_TARGET=app.target) as second:
        assert send(second, code, **headers).json()["result"] == "True"
    assert app.count("meet") == before + 1
