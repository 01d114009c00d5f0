# SPDX-License-Identifier: Apache-2.0
"""Bad requests get the right answer, and nothing is the worse for them."""

import contextlib
import json
import socket
import subprocess
import time

import pytest

from support import PATIENCE, eventually

SETTINGS = {"MAX_CODE_LENGTH": "10000", "MAX_BODY": "100Ki", "BODY_TIMEOUT": "1", "IDLE_TIMEOUT": "2"}

DEEP = 100_000


def check_error(answer, status, code=None):
    """Status and the three members of every refusal."""
    assert answer.status_code in (status if isinstance(status, tuple) else (status,)), answer.text
    body = answer.json()
    assert set(body) >= {"detail", "code", "remediation"}
    assert all(isinstance(body[name], str) and body[name] for name in ("detail", "code", "remediation")), body
    if code is not None:
        assert body["code"] == code, body
    return body


BODIES = [
    (b"", 400, "invalid_json"),
    (b"{", 400, "invalid_json"),
    (b"code=1", 400, "invalid_json"),
    (b'{"code": "1"} x', 400, "invalid_json"),
    (b"{'code': '1'}", 400, "invalid_json"),
    (b'{"code": "1",}', 400, "invalid_json"),
    (b'{"code": "1", "code": "2"}', 400, "invalid_json"),
    (b'{"code": NaN}', 400, "invalid_json"),
    (b'{"code": "a\nb"}', 400, "invalid_json"),
    (b'{"code": "\\x41"}', 400, "invalid_json"),
    (b'{"code": "\xff"}', 400, "invalid_json"),
    (b'{"code": "\xed\xa0\x80"}', 400, "invalid_json"),
    (b'\xff\xfe{\x00"\x00', 400, "invalid_json"),
    (b'{"context": ' + b"[" * DEEP + b"]" * (50_000 - 1) + b"}", (400, 413), None),
    (b"[" * 50_000, 400, "invalid_json"),
    (b'{"a":' * 15_000, 400, "invalid_json"),
    (b"\0" * 100, 400, "invalid_json"),
    (b"null", 422, "invalid_field"),
    (b"[]", 422, "invalid_field"),
    (b'"code"', 422, "invalid_field"),
    (b"{}", 422, "invalid_field"),
    (b'{"Code": "1"}', 422, "invalid_field"),
    (b'{"code": null}', 422, "invalid_field"),
    (b'{"code": 1}', 422, "invalid_field"),
    (b'{"code": ["1"]}', 422, "invalid_field"),
    (b'{"code": "\\ud800"}', (400, 422), None),
    (b'{"code": "1", "context": []}', 422, "invalid_field"),
    (b'{"code": "1", "context": "n = 5"}', 422, "invalid_field"),
    (b'{"code": "1", "context": 5}', 422, "invalid_field"),
    (b'{"code": "1", "timeout": "5"}', 422, "invalid_field"),
    (b'{"code": "1", "timeout": -1}', 422, "invalid_field"),
    (b'{"code": "1", "timeout": true}', 422, "invalid_field"),
    (b'{"code": "1", "timeout": []}', 422, "invalid_field"),
    (b'{"code": "1", "timeout": 1e999}', 422, "invalid_field"),
]


@pytest.mark.parametrize("body, status, code", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("one_shot", [False, True])
def test_bad_body(sidecar, shared, body, status, code, one_shot):
    path = "/execute" if one_shot else shared.path + "/execute"
    answer = sidecar.request("POST", path, data=body, headers={"Content-Type": "application/json"})
    check_error(answer, status, code)
    assert shared.value("1") == "1"


@pytest.mark.parametrize("field", ["code", "context", "timeout"])
def test_detail_names_the_field(sidecar, shared, field):
    body = {"code": "1", field: False}
    detail = check_error(sidecar.request("POST", shared.path + "/execute", json=body), 422)["detail"]
    assert field in detail


@pytest.mark.parametrize(
    "context",
    [
        {"not a name": 1, "": 2, "1x": 3},
        {"class": 1},
        {"__builtins__": {}},
        {"__name__": "x", "__loader__": 1},
        {"print": 5, "len": 6},
        {"\u2028": 1, "ünï": 2},
        {"deep": [[[[[[{"a": [[[]]]}]]]]]]},
        {"big": 10**300, "small": 1e-300, "minus": -0.0},
    ],
)
def test_odd_context_does_no_harm(sidecar, context):
    session = sidecar.create()
    answer = session.post("1 + 1", context=context)
    assert answer.status_code in (200, 400, 422), answer.text
    assert session.value("'next'") == "'next'"
    session.delete()


def test_half_a_surrogate_in_a_context(sidecar, session):
    body = b'{"code": "len(s)", "context": {"s": "\\ud83d"}}'
    answer = sidecar.request("POST", session.path + "/execute", data=body)
    assert answer.status_code in (200, 400, 422)
    assert session.value("1") == "1"


def test_further_members_are_ignored(session):
    assert session.value("1", later_addition={"x": [1]}) == "1"


def test_code_length(session):
    exact = "'" + "a" * 9998 + "'"
    assert len(session.value(exact)) == 10000
    check_error(session.post(exact + " "), 413, "too_large")
    check_error(session.post("'" + "ü" * 5000 + "'"), 413, "too_large")


def test_body_length(sidecar, session):
    body = json.dumps({"code": "1", "context": {"x": "a" * 200_000}})
    check_error(sidecar.request("POST", session.path + "/execute", data=body), 413, "too_large")
    chunks = (body[start : start + 5000].encode() for start in range(0, len(body), 5000))
    with contextlib.suppress(ConnectionError):
        check_error(sidecar.request("POST", session.path + "/execute", data=chunks), 413, "too_large")
    sidecar.hang_up()
    assert session.value("1") == "1"


def test_chunked_body(sidecar, session):
    pieces = iter([b'{"co', b'de": "20 ', b'+ 1"}'])
    answer = sidecar.request("POST", session.path + "/execute", data=pieces)
    assert answer.json()["result"] == "21"


UNKNOWN = "session-" + "f" * 32


@pytest.mark.parametrize(
    "method, path, status, code",
    [
        ("POST", f"/session/{UNKNOWN}/execute", 404, "unknown_session"),
        ("GET", f"/session/{UNKNOWN}", 404, "unknown_session"),
        ("POST", "/session/x/execute", 404, "unknown_session"),
        ("POST", "/session/" + "a" * 3000 + "/execute", 404, "unknown_session"),
        ("POST", "/session/%00/execute", (400, 404), None),
        ("POST", "/session/%2e%2e%2f/execute", 404, None),
        ("GET", "/", 404, "not_found"),
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/health/", 404, "not_found"),
        ("GET", "/healthy", 404, "not_found"),
        ("POST", f"/session/{UNKNOWN}/execute/more", 404, "not_found"),
        ("GET", "/HEALTH", 404, "not_found"),
        ("GET", "/session", 405, "method_not_allowed"),
        ("PUT", "/session", 405, "method_not_allowed"),
        ("POST", "/sessions", 405, "method_not_allowed"),
        ("DELETE", "/sessions", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("PUT", f"/session/{UNKNOWN}", 405, "method_not_allowed"),
        ("PATCH", f"/session/{UNKNOWN}", 405, "method_not_allowed"),
        ("GET", f"/session/{UNKNOWN}/execute", 405, "method_not_allowed"),
        ("GET", "/execute", 405, "method_not_allowed"),
        ("DELETE", "/metrics", 405, "method_not_allowed"),
        ("BREW", "/session", 405, "method_not_allowed"),
    ],
)
def test_bad_method_or_path(sidecar, method, path, status, code):
    answer = sidecar.request(method, path, json={"code": "1"} if method == "POST" else None)
    check_error(answer, status, code)
    if answer.status_code == 405:
        assert answer.headers["Allow"]


JSON_KINDS = ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"]
PLAIN_KINDS = ["text/plain", "application/x-www-form-urlencoded", None]
OTHER_KINDS = ["multipart/form-data; boundary=x", "application/jsonp", "x"]
PAGE_HEADERS = [{"Origin": "http://localhost:3000"}, {"Referer": "http://localhost/"}, {"Sec-Fetch-Site": "same-origin"}]


def send_kind(sidecar, session, kind, headers=None, body=b'{"code": "1"}'):
    return sidecar.request("POST", session.path + "/execute", data=body, headers={"Content-Type": kind, **(headers or {})})


@pytest.mark.parametrize("kind", JSON_KINDS + PLAIN_KINDS)
def test_a_program_need_not_say_that_it_sends_json(sidecar, session, kind):
    answer = send_kind(sidecar, session, kind)
    assert answer.status_code == 200, answer.text
    check_error(send_kind(sidecar, session, kind, body=b"code=1"), 400, "invalid_json")


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_kinds_that_are_not_json(sidecar, session, kind):
    check_error(send_kind(sidecar, session, kind), 415, "unsupported_media_type")


@pytest.mark.parametrize("headers", PAGE_HEADERS, ids=lambda headers: next(iter(headers)))
def test_a_web_page_must_say_that_it_sends_json(sidecar, session, headers):
    """A form on any page can send the plain kinds, so from a browser they are refused."""
    for kind in JSON_KINDS:
        assert send_kind(sidecar, session, kind, headers).status_code == 200
    for kind in PLAIN_KINDS + OTHER_KINDS:
        check_error(send_kind(sidecar, session, kind, headers), 415, "unsupported_media_type")


def test_plain_curl(sidecar, session):
    command = ["curl", "-s", "--noproxy", "*", sidecar.url + session.path + "/execute", "-d", '{"code": "6 * 7"}']
    assert json.loads(subprocess.run(command, capture_output=True, timeout=60, check=True).stdout)["result"] == "42"


def test_two_slashes_are_not_one(sidecar):
    """On the wire, because client libraries differ in whether they tidy a path."""
    received = sidecar.raw(b"GET //health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 404 ") and b'"not_found"' in received


def test_query_is_not_part_of_the_path(sidecar):
    assert sidecar.request("GET", "/health?verbose=1&x").status_code == 200


@pytest.mark.parametrize("name", ["Origin", "Host"])
def test_web_pages_and_foreign_names_are_refused(sidecar, name):
    """A page in a browser on this machine must not be able to run code here."""
    answer = sidecar.request("POST", "/session", headers={name: "http://evil.example" if name == "Origin" else "evil.example"})
    check_error(answer, 403, "forbidden")


RAW = {
    "garbage": b"\x00\x01\x02\xff garbage\r\n\r\n",
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    "half an http2 preface": b"PRI * HTTP/2.0\r\n\r\nSM",
    "an http2 preface with a slip": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r ",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    "bad version": b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "long line": b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 300_000 + b"\r\n\r\n",
    "many headers": b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    "bad header name": b"GET /health HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n",
    "header without colon": b"GET /health HTTP/1.1\r\nHost: localhost\r\nnonsense\r\n\r\n",
    "negative length": b"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "length no number": b"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Length: two\r\n\r\n{}",
    "length beyond 64 bits": b"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
    "huge length": b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{",
    "two lengths": b"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "length and chunks": b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
    "bad chunk": b"POST /execute HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "huge chunk": b"POST /execute HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    "unknown coding": b"POST /execute HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: smoke\r\n\r\n",
}


@pytest.mark.parametrize("name", sorted(RAW))
def test_bad_bytes_on_the_wire(sidecar, shared, name):
    """A refusal or a closed connection; never a success, a hang or a crash."""
    started = time.monotonic()
    received = sidecar.raw(RAW[name], deadline=30)
    first = received.split(b"\r\n", 1)[0]
    assert first == b"" or first.split(b" ")[1][:1] in (b"4", b"5"), received[:300]
    assert time.monotonic() - started < 25 * PATIENCE
    sidecar.hang_up()  # the kept connection may be at its IDLE_TIMEOUT just now
    assert shared.value("1") == "1"


ZEROS = {
    "a value": (b"X: a\x00b", (200, 400)),
    "a name": (b"X\x00Y: a", (400,)),
    "the length's end": (b"Content-Length: 13\x00", (200, 400)),
    "the length": (b"Content-Length: 1\x003", (400,)),
    "the coding": (b"Transfer-Encoding: chun\x00ked", (400, 501)),
    "the origin": (b"Origin: http://evil.example\x00", (400, 403)),
    "the origin's start": (b"Origin: \x00http://evil.example", (400, 403)),
    "the host": (b"Host: localhost\x00.evil.example", (200, 400, 403)),
    "the correlation id": (b"X-Correlation-Id: ab\x00cd", (200, 400)),
}


@pytest.mark.parametrize("name", sorted(ZEROS))
def test_zero_in_a_header(sidecar, shared, name):
    """Refused or without harm. The HTTP library decides which: up to its version 0.9 it ends a value at the zero
    before we see it, later ones refuse the request. In no version does a zero get past a check, split an answer
    in two, or come back."""
    header, statuses = ZEROS[name]
    request = [b"POST /execute HTTP/1.1", b"Content-Type: application/json", b"Connection: close", header]
    if not header.startswith(b"Host"):
        request.append(b"Host: localhost")
    if not header.startswith((b"Content-Length", b"Transfer-Encoding")):
        request.append(b"Content-Length: 13")
    received = sidecar.raw(b"\r\n".join(request) + b'\r\n\r\n{"code": "1"}')
    assert received == b"" or received.startswith(tuple(b"HTTP/1.1 %d " % status for status in statuses)), received
    assert received.count(b"HTTP/1.1 ") <= 1 and b"\0" not in received
    assert shared.value("1") == "1"


def test_half_a_request(sidecar, shared):
    whole = b'POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{"code": "1"}'
    for length in range(1, len(whole), 9):
        assert sidecar.raw(whole[:length], deadline=0.05, shut=True)[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 408")
    assert shared.value("1") == "1"


@pytest.mark.parametrize("drips", (False, True), ids=("silent", "byte-by-byte"))
def test_body_that_never_comes(sidecar, shared, drips):
    """BODY_TIMEOUT is one second here, and looked at each second; IDLE_TIMEOUT, which answers nothing, is longer."""
    head = b'POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"code"'
    received = b""
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=0.1 if drips else 30 * PATIENCE) as sock:
        sock.sendall(head)
        started = time.monotonic()
        while time.monotonic() - started < 30 * PATIENCE:
            try:
                if not (data := sock.recv(4096)):
                    break
                received += data
            except TimeoutError:
                sock.sendall(b" ")
        assert time.monotonic() - started < 25 * PATIENCE
    assert received.startswith(b"HTTP/1.1 408 ") and b'"code":"request_timeout"' in received, received
    sidecar.hang_up()  # as above
    assert shared.value("1") == "1"


def test_idle_connection_is_closed(sidecar):
    """IDLE_TIMEOUT is two seconds here."""
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=10 * PATIENCE) as sock:
        with contextlib.suppress(ConnectionError):
            assert sock.recv(4096) == b""


def test_two_requests_in_one_packet(sidecar):
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert sidecar.raw(request + last).count(b"HTTP/1.1 200") == 2


def test_old_http_and_expect(sidecar):
    assert b" 200 " in sidecar.raw(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n").split(b"\r\n")[0]
    head = b"POST /execute HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 13\r\n\r\n"
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=10 * PATIENCE) as sock:
        sock.sendall(head)
        assert sock.recv(4096).startswith(b"HTTP/1.1 100")
        sock.sendall(b'{"code": "1"}')
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")


def test_five_hundred_bad_requests_leave_nothing(sidecar, shared):
    before = len(sidecar.descriptors())
    for number in range(500):
        sidecar.request("POST", shared.path + "/execute", data=b"{" if number % 2 else b"[]")
    eventually(lambda: len(sidecar.descriptors()) <= before + 1, "the descriptors are closed again")
    assert shared.value("1") == "1"
