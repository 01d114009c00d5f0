# SPDX-License-Identifier: Apache-2.0
"""Output that is too long for its answer: head and tail in the answer, all of it by its id."""

import contextlib
import socket

from support import eventually, resident_bytes, running_sidecar

SETTINGS = {
    "MAX_OUTPUT": "4096",
    "STORED_OUTPUT": "1Mi",
    "TOTAL_STORED_OUTPUT": "2Mi",
    "SPARE_WORKERS": "2",
}


def fetch(sidecar, ref, **query):
    answer = sidecar.request("GET", ref, params=query)
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain"), answer.text
    return answer


def test_exactly_the_limit_is_answered_whole(sidecar):
    session = sidecar.create()
    reply = session.ok("print('x' * 4095)")
    assert reply["stdout"] == "x" * 4095 + "\n" and reply["stdout_bytes"] == 4096
    assert reply["stdout_truncated"] is False and reply["stdout_ref"] is None
    path = f"/session/{session.id}/executions/{reply['execution_id']}/stdout"
    answer = sidecar.request("GET", path)
    assert answer.status_code == 404 and answer.json()["code"] == "unknown_output" and answer.json()["remediation"]


def test_one_byte_more_is_cut_and_stored(sidecar):
    session = sidecar.create()
    reply = session.ok("import sys\nprint('x' * 4096)\nprint('e', file=sys.stderr)")
    assert reply["stdout_truncated"] is True and reply["stdout_bytes"] == 4097 and "bytes dropped" in reply["stdout"]
    assert reply["stderr"] == "e\n" and reply["stderr_ref"] is None and reply["stderr_bytes"] == 2
    answer = fetch(sidecar, reply["stdout_ref"])
    assert answer.text == "x" * 4096 + "\n"
    assert answer.headers["X-Total-Length"] == answer.headers["X-Stored-Length"] == "4097"


def test_all_of_it_is_readable_in_pieces(sidecar):
    session = sidecar.create()
    reply = session.ok("import sys\nfor i in range(20000):\n    print(i, end=' ', file=sys.stderr)")
    expected = "".join(f"{i} " for i in range(20000))
    text = ""
    while True:
        piece = fetch(sidecar, reply["stderr_ref"], offset=len(text), length=10007).text
        text += piece
        if not piece:
            break
    assert text == expected and reply["stderr_bytes"] == len(expected)
    assert fetch(sidecar, reply["stderr_ref"], offset=len(expected) - 4).text == "999 "
    for query in ({"offset": "x"}, {"length": "-1"}):
        assert sidecar.request("GET", reply["stderr_ref"], params=query).status_code == 422


def test_beyond_the_store_the_start_stays(sidecar):
    session = sidecar.create()
    reply = session.ok("for i in range(300):\n    print('%07d' % i * 1024)")
    answer = fetch(sidecar, reply["stdout_ref"])
    stored, total = int(answer.headers["X-Stored-Length"]), int(answer.headers["X-Total-Length"])
    assert total == reply["stdout_bytes"] == 300 * (7 * 1024 + 1)
    assert 1000 * 1024 < stored <= 1 << 20 and stored == len(answer.content)
    assert answer.text == "".join("%07d" % i * 1024 + "\n" for i in range(300))[:stored]


def test_the_oldest_goes_first(sidecar):
    session = sidecar.create()
    refs = [session.ok(f"print('{n}' * 400_000)")["stdout_ref"] for n in range(4)]
    there = [sidecar.request("GET", ref).status_code for ref in refs]
    assert there == [404, 404, 200, 200]
    assert fetch(sidecar, refs[3], length=3).text == "333"


def test_it_is_the_sessions_own(sidecar):
    session, other = sidecar.create(), sidecar.create()
    ref = session.ok("print('x' * 5000)")["stdout_ref"]
    foreign = ref.replace(session.id, other.id)
    assert sidecar.request("GET", foreign).json()["code"] == "unknown_output"
    assert session.ok("1")["stdout_ref"] is None
    assert len(fetch(sidecar, ref).text) == 5001
    session.delete()
    answer = sidecar.request("GET", ref)
    assert answer.status_code == 404 and answer.json()["code"] == "unknown_session"


def test_a_hog_costs_its_neighbours_nothing(sidecar):
    quiet = sidecar.create()
    kept = quiet.ok("print('q' * 5000)")["stdout_ref"]
    hogs = [sidecar.create() for _ in range(3)]
    for hog in hogs:
        assert hog.ok("print('h' * 900_000)")["stdout_ref"]
    assert fetch(sidecar, kept).text == "q" * 5000 + "\n"
    for session in [quiet, *hogs]:
        session.delete()


def test_one_shot_has_nothing_to_ask_for_later(sidecar):
    reply = sidecar.execute("print('x' * 9000)")
    assert reply["stdout_truncated"] is True and reply["stdout_ref"] is None and reply["stdout_bytes"] == 9001


def test_clients_that_do_not_read_take_no_more_than_there_is():
    """Each of these answers is six megabytes of the server's memory for as long as its client likes."""
    size, clients = 6_000_000, 30
    with running_sidecar(MAX_OUTPUT="4096", STORED_OUTPUT="8Mi") as sidecar, contextlib.ExitStack() as stack:
        session = sidecar.create()
        ref = session.ok(f"print('x' * {size})")["stdout_ref"]
        before, answers = resident_bytes(sidecar.process.pid), []
        for _ in range(clients):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.settimeout(10)
            sock.connect(("127.0.0.1", sidecar.port))
            sock.sendall(f"GET {ref} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            answers.append(sock.recv(12).decode())
        assert answers[0] == "HTTP/1.1 200" and answers.count("HTTP/1.1 503") >= clients - 6, answers
        assert resident_bytes(sidecar.process.pid) - before < 60 << 20
        refused = sidecar.request("GET", ref)
        assert refused.status_code == 503 and refused.json()["code"] == "out_of_memory" and refused.headers["Retry-After"]
        assert sidecar.request("GET", ref, params={"length": 5}).text == "xxxxx"
        reply = session.ok("print('y' * 3000); 'z' * 100_000")  # there is room left for what exists only once
        assert len(reply["stdout"]) == 3001 and len(reply["result"]) > 100_000
        stack.pop_all().close()
        eventually(lambda: sidecar.request("GET", ref).status_code == 200, "there is room again")
