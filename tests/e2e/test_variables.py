# SPDX-License-Identifier: Apache-2.0
"""Values that are sent as they are: PUT /session/{id}/variables/{name}."""

import hashlib
import http.client
import json
import subprocess
import urllib.parse

import pytest
import requests

from support import PATIENCE, Background, eventually, resident_bytes, running_sidecar

SETTINGS = {"BODY_TIMEOUT": "5"}
TEXT, JSON, BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"
MIB = 1 << 20


def put(session, name, data, kind=TEXT, **headers):
    path = f"{session.path}/variables/{urllib.parse.quote(name, safe='')}"
    return session.sidecar.request("PUT", path, data=data, headers={"Content-Type": kind, **headers})


def good(session, name, data, kind=TEXT):
    answer = put(session, name, data, kind)
    assert answer.status_code == 200, answer.text
    return answer.json()


def files_in_memory(sidecar):
    return [target for target in sidecar.descriptor_targets() if "memfd:body" in target]


def bytes_in_memory(sidecar):
    return sum(size for target, size in sidecar.descriptor_sizes() if "memfd:body" in target)


def begin(sidecar, session, length, sent, kind=TEXT, name="x"):
    """The connection of an upload that has not come to its end."""
    line = http.client.HTTPConnection("127.0.0.1", sidecar.port, timeout=60 * PATIENCE)
    line.putrequest("PUT", f"{session.path}/variables/{name}")
    line.putheader("Content-Type", kind)
    line.putheader("Content-Length", str(length))
    line.endheaders(b"x" * sent)
    return line


def answer_of(line):
    answer = line.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.mark.parametrize(
    "kind, data, type_name, length, value",
    [
        (TEXT, "größer\r\n\0x".encode(), "str", 10, "'größer\\r\\n\\x00x'"),
        ("Text/Plain", b"plain", "str", 5, "'plain'"),
        (TEXT, b"", "str", 0, "''"),
        (TEXT, "\ufeffmark".encode(), "str", 5, "'\\ufeffmark'"),
        (JSON, b'{"a": [1, 2.5, null, "\\u00e9"]}', "dict", 1, "{'a': [1, 2.5, None, 'é']}"),
        (JSON, b" [1,\n2] ", "list", 2, "[1, 2]"),
        (JSON, b'"text"', "str", 4, "'text'"),
        (JSON, b"17", "int", None, "17"),
        ("application/problem+json", b"null", "NoneType", None, "None"),
        (BYTES, bytes(range(256)), "bytes", 256, repr(bytes(range(256)))),
        (BYTES, b"", "bytes", 0, "b''"),
    ],
)
def test_what_it_becomes(session, kind, data, type_name, length, value):
    assert good(session, "it", data, kind) == {"name": "it", "type": type_name, "length": length, "bytes": len(data)}
    assert session.ok("print(repr(it), end='')")["stdout"] == value


@pytest.mark.parametrize("name", ["_", "x1", "naïve", "数", "X" * 256])
def test_names(session, name):
    assert good(session, name, b"v")["name"] == name
    assert session.value(f"globals()[{name!r}]") == "'v'"


@pytest.mark.parametrize("name", ["1x", "a b", "a.b", "a-b", "%", "x" * 257, "x" * 900, "a\0b", "class"])
def test_no_names(session, name):
    answer = put(session, name, b"v")
    assert answer.status_code == 422 and answer.json()["code"] == "invalid_field", answer.text
    assert session.value("6 * 7") == "42"


@pytest.mark.parametrize(
    "kind, data, status, words",
    [
        (TEXT, b"abc\xffdef", 422, "3"),
        (TEXT, "ä".encode("latin-1"), 422, "0"),
        (JSON, b'{"a": }', 422, "JSON"),
        (JSON, b"", 422, "JSON"),
        (JSON, b"\xff", 422, ""),
        ("text/plain; charset=latin-1", b"abc", 415, "latin-1"),
        ("image/png", b"abc", 415, "image/png"),
        ("application/x-www-form-urlencoded", b"abc", 415, "text/plain"),
        (None, b"abc", 415, "text/plain"),
    ],
)
def test_what_cannot_be(session, kind, data, status, words):
    """The variable is then as it was."""
    good(session, "it", b"before")
    answer = put(session, "it", data, kind)
    assert answer.status_code == status and words in answer.json()["detail"], answer.text
    assert session.value("it") == "'before'"


def test_web_pages(session):
    """What a page could send from anywhere does not come through, whatever its type."""
    for origin in ("https://evil.example", "null"):
        answer = put(session, "it", b"v", Origin=origin)
        assert answer.status_code == 403 and answer.json()["code"] == "forbidden", answer.text
    assert put(session, "it", b"v", Referer="https://evil.example/").status_code == 415
    assert "it" not in session.ok("1")["locals"]
    assert put(session, "it", b"v", Origin="http://localhost:3000").status_code == 200


def test_sessions_that_are_not_there(sidecar):
    gone = sidecar.create()
    gone.delete()
    for path in (gone.path, "/session/none"):
        answer = sidecar.request("PUT", f"{path}/variables/x", data=b"v", headers={"Content-Type": TEXT})
        assert answer.status_code == 404 and answer.json()["code"] == "unknown_session", answer.text


def test_other_routes_of_the_path(session):
    answer = session.sidecar.request("GET", f"{session.path}/variables/x")
    assert answer.status_code == 405 and answer.headers["Allow"] == "PUT"


def test_it_takes_its_turn(session):
    """Behind what runs; what is sent later comes later."""
    work = session.in_background("import time\nwhile 'stop' not in globals():\n    time.sleep(0.01)")
    eventually(lambda: session.info()["state"] == "running", "it runs")
    upload = Background(lambda: good(session, "stop", b"v"))
    eventually(lambda: session.info()["queued"] == 1, "the value waits")
    session.sidecar.request("POST", f"{session.path}/interrupt")
    assert work.result().json()["success"] is False
    assert upload.result()["length"] == 1
    assert session.value("stop") == "'v'"


def test_roll_back(session):
    good(session, "it", b"first")
    session.rest()
    good(session, "it", b"second")
    session.rest()
    answer = session.sidecar.request("POST", f"{session.path}/rollback")
    assert answer.json() == {"status": "ok", "state": "rolled_back"}, answer.text
    assert session.value("it") == "'first'"


def test_real_client(session, tmp_path):
    file = tmp_path / "book.txt"
    file.write_bytes("zeile ß\n".encode() * 400_000)
    url = f"{session.sidecar.url}{session.path}/variables/book"
    for more in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]):
        command = ["curl", "-sS", "-X", "PUT", "--data-binary", f"@{file}", "-H", f"Content-Type: {TEXT}", *more, url]
        done = subprocess.run(command, capture_output=True, timeout=60 * PATIENCE, check=True)
        assert json.loads(done.stdout) == {"name": "book", "type": "str", "length": 3_200_000, "bytes": 3_600_000}
    assert session.value("book.count('ß')") == "400000"


def test_a_large_value_leaves_nothing_behind(sidecar):
    """100 MiB go through, and the gateway is as it was."""
    session = sidecar.create()
    data = bytes(range(33, 126)) * (100 * MIB // 93)
    try:
        good(session, "warm", b"x" * MIB, BYTES)
        before = resident_bytes(sidecar.process.pid)
        assert good(session, "it", data, BYTES)["length"] == len(data)
        eventually(lambda: resident_bytes(sidecar.process.pid) - before < 4 * MIB, "its memory is back")
        eventually(lambda: files_in_memory(sidecar) == [], "no file is left")
        found = session.value("import hashlib; hashlib.sha256(it).hexdigest()")
        assert found == repr(hashlib.sha256(data).hexdigest())
    finally:
        session.delete()


def test_others_are_served_meanwhile(sidecar):
    """An upload of 100 MiB, looked at when it has begun, in its middle and before its end."""
    session, other = sidecar.create(), sidecar.create()
    size, piece = 100 * MIB, b"x" * MIB
    line = begin(sidecar, session, size, MIB)
    for sent in range(1, 100):
        if sent in (1, 50, 99):
            assert other.value(f"{sent} * 2") == str(sent * 2)
            assert sidecar.request("GET", "/health").status_code == 200
        line.send(piece)
    status, reply = answer_of(line)
    assert status == 200 and reply["length"] == size, reply
    line.close()
    session.delete()
    other.delete()


def test_many_at_once(sidecar):
    sessions = [sidecar.create() for _ in range(8)]
    data = [hashlib.sha256(bytes([i])).digest() * 65536 for i in range(8)]

    def upload(session, value):
        try:
            return good(session, "it", value, BYTES)
        finally:
            sidecar.hang_up()

    work = [Background(lambda s=s, d=d: upload(s, d)) for s, d in zip(sessions, data)]
    assert [w.result()["bytes"] for w in work] == [2 * MIB] * 8
    for session, value in zip(sessions, data):
        assert session.value("it[:32].hex(), len(set(it[i:i+32] for i in range(0, len(it), 32)))") == repr((value[:32].hex(), 1))
        session.delete()
    eventually(lambda: files_in_memory(sidecar) == [], "no file is left")


def test_clients_that_leave(sidecar, session):
    line = begin(sidecar, session, 10 * MIB, 5 * MIB)
    eventually(lambda: files_in_memory(sidecar), "the file is there")
    line.close()
    eventually(lambda: files_in_memory(sidecar) == [], "and gone with its client")
    assert "x" not in session.ok("1")["locals"]


def test_clients_that_stop(sidecar, session):
    """BODY_TIMEOUT, and what comes at a pace has longer."""
    line = begin(sidecar, session, 10 * MIB, 1000)
    status, reply = answer_of(line)
    assert status == 408 and reply["code"] == "request_timeout", reply
    line.close()
    eventually(lambda: files_in_memory(sidecar) == [], "no file is left")


def test_what_is_too_long():
    with running_sidecar(MAX_UPLOAD="1Mi") as sidecar:
        session = sidecar.create()
        answer = put(session, "it", b"x" * (MIB + 1))
        assert answer.status_code == 413 and "MAX_UPLOAD" in answer.json()["detail"], answer.text
        answer = put(session, "it", iter([b"x" * MIB, b"x"]))  # whose length is not said before
        assert answer.status_code == 413 and answer.json()["code"] == "too_large", answer.text
        assert good(session, "it", b"x" * MIB)["length"] == MIB
        assert good(session, "it", iter([b"x" * MIB]))["length"] == MIB
        # All together: four times as much.
        lines = [begin(sidecar, session, MIB, MIB - 1) for _ in range(4)]
        eventually(lambda: bytes_in_memory(sidecar) == 4 * (MIB - 1), "four of them are there but for a byte")
        refused = put(session, "it", b"x" * 5)
        assert refused.status_code == 503 and refused.json()["code"] == "out_of_memory" and int(refused.headers["Retry-After"]) > 0
        for line in lines:
            line.close()
        eventually(lambda: put(session, "it", b"x" * 5).status_code == 200, "there is room again")
        assert session.value("it") == "'xxxxx'"


def test_more_than_the_session_can_hold():
    with running_sidecar(MEMORY_LIMIT="64Mi") as sidecar:
        session = sidecar.create()
        good(session, "it", b"before")
        for data in (b"x" * 65 * MIB, b"x" * 60 * MIB):  # more than its memory, and more than is left of it
            answer = put(session, "it", data, BYTES)
            assert answer.status_code == 507 and answer.json()["code"] == "value_too_large", answer.text
            assert session.value("it") == "'before'"


def test_keys():
    with running_sidecar(CODEMODE_API_KEY="key-of-the-owner") as sidecar:
        session = sidecar.create()
        url = f"{sidecar.url}{session.path}/variables/x"
        heads = {"Content-Type": TEXT, "Authorization": "Bearer wrong-key"}
        assert requests.put(url, data=b"v", headers=heads, timeout=60).status_code == 401
        assert good(session, "x", b"v")["length"] == 1
