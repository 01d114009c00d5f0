# SPDX-License-Identifier: Apache-2.0
"""Keys: who is let in, whose sessions are whose, what limits a name has, and how keys are replaced."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import subprocess
import tempfile

import pytest
import requests

from support import CODEMODE, PATIENCE, ROOT, eventually, running_sidecar

ROUTES = re.findall(
    r'^CM_ROUTE\("(\w+)", "([^"]+)", \w+, (\w+), (\w+)\)$', (ROOT / "tables/routes.def").read_text(), re.MULTILINE
)
OPEN = {"/health", "/ready"}

KEY = "default-key-5f2c9a71"
ALICE, ALICE_2, BOB, CAROL = "alice-key-00c1a7", "alice-key-second-1", "bob-key-4be01d9a", "carol-key-81aa0c"
NAMED = f"""# name key limits
alice {ALICE} timeout=1 memory=64Mi max_sessions=2
alice {ALICE_2}
bob   {BOB}
carol {CAROL} code_length=100
"""

_FOLDER = tempfile.TemporaryDirectory(prefix="codemode-keys-")
KEYS_FILE = pathlib.Path(_FOLDER.name) / "keys"
KEYS_FILE.write_text(NAMED)
SETTINGS = {
    "CODEMODE_API_KEY": KEY,
    "CODEMODE_KEYS_FILE": str(KEYS_FILE),
    "SECRETS_INTERVAL": "0.1",
    "LOG_LEVEL": "DEBUG",
}


def ask(server, method, path, key=None, headers=None, **kwargs):
    """One request of its own, with the key or without."""
    headers = {**(headers or {}), **({"Authorization": f"Bearer {key}"} if key else {})}
    return requests.request(method, server.url + path, headers=headers, timeout=20 * PATIENCE, **kwargs)


def create(server, key, **kwargs):
    answer = ask(server, "POST", "/session", key, **kwargs)
    assert answer.status_code == 200, answer.text
    return answer.json()["session_id"]


def execute(server, key, session, code="1", **body):
    path = f"/session/{session}/execute" if session else "/execute"
    return ask(server, "POST", path, key, json={"code": code, **body})


def concrete(path):
    return path.replace("{id}", "session-" + "0" * 32).replace("{execution}", "exec-1")


def test_the_table_is_read():
    assert len(ROUTES) >= 14 and {path for _, path, _, key in ROUTES if key == "OPEN"} == OPEN


@pytest.mark.parametrize(("method", "path", "body", "rule"), ROUTES, ids=[f"{r[0]} {r[1]}" for r in ROUTES])
def test_every_route(sidecar, method, path, body, rule):
    body = {"json": {"code": "1"}} if body != "NONE" else {}
    for key in (None, "wrong-key-0000000", KEY[:-1], KEY + "x"):
        answer = ask(sidecar, method, concrete(path), key, **body)
        if path in OPEN:
            assert answer.status_code == 200
            continue
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["code"] == "unauthenticated"
        assert answer.json() == ask(sidecar, "GET", "/no/such/path").json()  # one and the same text
    assert ask(sidecar, method, concrete(path), KEY, **body).status_code != 401
    if method == "GET":
        assert (ask(sidecar, "HEAD", concrete(path)).status_code == 401) == (path not in OPEN)


def test_a_path_that_there_is_not(sidecar):
    assert ask(sidecar, "GET", "/nowhere").status_code == 401
    assert ask(sidecar, "GET", "/nowhere", KEY).status_code == 404
    answer = ask(sidecar, "PUT", "/execute")
    assert answer.status_code == 401 and "Allow" not in answer.headers
    assert ask(sidecar, "PUT", "/execute", KEY).status_code == 405


WAYS = {
    "bearer": ({"Authorization": f"Bearer {KEY}"}, 200),
    "in small letters": ({"authorization": f"bearer {KEY}"}, 200),
    "x-api-key": ({"x-api-key": KEY}, 200),
    "both, the first is right": ({"Authorization": f"Bearer {KEY}", "x-api-key": "nonsense"}, 200),
    "both, the first is wrong": ({"Authorization": "Bearer nonsense", "x-api-key": KEY}, 401),
    "basic": ({"Authorization": f"Basic {KEY}"}, 401),
    "no scheme": ({"Authorization": KEY}, 401),
    "quoted": ({"Authorization": f'Bearer "{KEY}"'}, 401),
    "a list": ({"Authorization": f"Bearer x, Bearer {KEY}"}, 401),
    "a hash": ({"Authorization": "Bearer sha256:" + "0" * 64}, 401),
    "a cookie": ({"Cookie": f"Authorization=Bearer {KEY}"}, 401),
    "long": ({"Authorization": "Bearer " + "k" * 8000}, 401),
}


@pytest.mark.parametrize("name", WAYS)
def test_ways_to_send_it(sidecar, name):
    headers, status = WAYS[name]
    assert ask(sidecar, "GET", "/sessions", headers=headers).status_code == status


def test_not_in_the_query(sidecar):
    assert ask(sidecar, "GET", f"/sessions?key={KEY}&api_key={KEY}&Authorization=Bearer {KEY}").status_code == 401


def test_two_headers(sidecar):
    head = f"GET /sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    assert sidecar.raw(head.encode()).startswith(b"HTTP/1.1 400 ")


def test_a_large_body_of_nobody(sidecar):
    """It is not read to its end."""
    head = b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\n"
    assert sidecar.raw(head + b"x" * 1000).startswith(b"HTTP/1.1 401 ")
    chunk = b"%x\r\n%s\r\n" % (32768, b"x" * 32768)
    head = b"POST /execute HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert sidecar.raw(head + 8 * chunk)[:12] in (b"", b"HTTP/1.1 401", b"HTTP/1.1 413")


# --- sessions


def test_sessions_belong_to_their_key(sidecar):
    mine, absent = create(sidecar, ALICE), "session-" + "0" * 32
    try:
        assert execute(sidecar, ALICE_2, mine, "x = 42").status_code == 200  # another key of the same name
        for method, path, body, _ in ROUTES:
            if "{id}" not in path or method == "DELETE":
                continue
            body = {"json": {"code": "1"}} if body != "NONE" else {}
            path = path.replace("{execution}", "exec-1")
            for key in (BOB, KEY):
                got = ask(sidecar, method, path.replace("{id}", mine), key, **body)
                wanted = ask(sidecar, method, path.replace("{id}", absent), key, **body)
                assert got.status_code == wanted.status_code == 404, (method, path, got.text)
                if wanted.json()["code"] != "unknown_output":
                    assert got.json() == wanted.json()
        assert ask(sidecar, "DELETE", f"/session/{mine}", BOB).json() == {"status": "ok"}
        assert mine in ask(sidecar, "GET", "/sessions", ALICE).json()["sessions"]
        assert mine not in ask(sidecar, "GET", "/sessions", BOB).json()["sessions"]
        assert execute(sidecar, ALICE, mine, "x").json()["result"] == "42"
    finally:
        ask(sidecar, "DELETE", f"/session/{mine}", ALICE)
    assert ask(sidecar, "GET", f"/session/{mine}", ALICE).status_code == 404


def test_a_name_has_its_share_of_sessions(sidecar):
    made = [create(sidecar, ALICE), create(sidecar, ALICE_2)]
    answer = ask(sidecar, "POST", "/session", ALICE)
    assert answer.status_code == 429 and "max_sessions" in answer.json()["detail"]
    made_by_bob = create(sidecar, BOB)
    for session, key in ((made[0], ALICE), (made[1], ALICE), (made_by_bob, BOB)):
        ask(sidecar, "DELETE", f"/session/{session}", key)


def test_limits_of_a_name(sidecar):
    session = create(sidecar, ALICE)
    try:
        limits = ask(sidecar, "GET", f"/session/{session}", ALICE).json()["limits"]
        assert limits["timeout"] == 1 and limits["memory"] == 64 << 20
        reply = execute(sidecar, ALICE, session, "import time; time.sleep(30)").json()
        assert reply["timed_out"] and reply["execution_time"] < 10 * PATIENCE
        reply = execute(sidecar, ALICE, session, "import time; time.sleep(30)", timeout=25).json()
        assert reply["timed_out"] and reply["execution_time"] < 10 * PATIENCE
        reply = execute(sidecar, ALICE, None, "import time; time.sleep(30)").json()
        assert reply["timed_out"] and reply["execution_time"] < 10 * PATIENCE
        assert "MemoryError" in execute(sidecar, ALICE, None, "len(bytearray(100 << 20))").json()["error"]
        answer = execute(sidecar, ALICE, session, limits={"memory": 128 << 20})
        assert answer.status_code == 422 and "memory" in answer.json()["detail"]
    finally:
        ask(sidecar, "DELETE", f"/session/{session}", ALICE)
    assert execute(sidecar, BOB, None, "len(bytearray(100 << 20))").json()["result"] == str(100 << 20)
    assert execute(sidecar, CAROL, None, "#" * 101).status_code == 413


# --- what is told to whom


def test_code_does_not_see_keys(sidecar):
    look = (
        "import os, gc, sys\n"
        "text = repr(dict(os.environ)) + repr(sys.argv) + repr(globals())\n"
        "for path in ('/proc/self/environ', '/proc/1/environ'):\n"
        "    try:\n        text += repr(open(path, 'rb').read())\n    except OSError:\n        pass\n"
        f"any(k in text for k in ('{KEY[:-1]}' + KEY_END, '{ALICE[:-1]}' + ALICE_END))"
    )
    look = look.replace("KEY_END", repr(KEY[-1]), 1).replace("ALICE_END", repr(ALICE[-1]), 1)
    assert execute(sidecar, KEY, None, look).json()["result"] == "False"
    looked = 0
    for pid in sidecar.children():
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # a one-shot's worker ends
            environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
            assert not any(key.encode() in environment for key in (KEY, ALICE, BOB))
            looked += 1
    assert looked > 0


def test_metrics_carry_names(sidecar):
    ask(sidecar, "GET", "/sessions", BOB)
    before = sidecar.metrics()
    ask(sidecar, "GET", "/sessions", BOB)
    ask(sidecar, "GET", "/sessions", "nobody's-key")
    after = sidecar.metrics()
    assert after['codemode_key_requests_total{key="bob"}'] == before['codemode_key_requests_total{key="bob"}'] + 1
    assert after["codemode_auth_failures_total"] == before["codemode_auth_failures_total"] + 1


def test_the_log_has_names_and_no_keys(sidecar):
    for key in (ALICE, BOB, KEY):
        session = create(sidecar, key)
        ask(sidecar, "DELETE", f"/session/{session}", key)
    ask(sidecar, "GET", "/sessions", "wrong-key-in-the-log")
    lines = sidecar.log_lines()
    assert {line.get("key") for line in lines if line["event"] == "session_created"} >= {"alice", "bob", "default"}
    assert {line.get("key") for line in lines if line["event"] == "http_request"} >= {None, "bob", "default"}
    text = sidecar.log_text()
    assert not any(key in text for key in (KEY, ALICE, ALICE_2, BOB, CAROL, "wrong-key-in-the-log"))


# --- changes


def replace(text):
    """As a deployment would: another file under the same name."""
    fresh = KEYS_FILE.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, KEYS_FILE)


def over(kept, method, path, key):
    """(status, JSON) of a request over a connection that stays."""
    kept.request(method, path, headers={"Authorization": f"Bearer {key}"})
    answer = kept.getresponse()
    return answer.status, json.loads(answer.read())


def test_rotation_keeps_connections(sidecar):
    dave, dave_2 = "dave-key-7d00f2", "dave-key-9c11e8"
    kept = http.client.HTTPConnection("127.0.0.1", sidecar.port, timeout=20 * PATIENCE)
    try:
        kept.connect()
        socket_before = kept.sock
        replace(f"dave {dave}\n{NAMED}")
        eventually(lambda: over(kept, "GET", "/sessions", dave)[0] == 200, "the new key is known")
        session = over(kept, "POST", "/session", dave)[1]["session_id"]
        replace(f"dave {dave_2}\n{NAMED}")
        eventually(lambda: over(kept, "GET", "/sessions", dave_2)[0] == 200, "the second key is known")
        assert over(kept, "GET", "/sessions", dave)[0] == 401
        assert over(kept, "GET", "/sessions", dave_2) == (200, {"sessions": [session]})  # it is dave's as before
        assert over(kept, "DELETE", f"/session/{session}", dave_2)[0] == 200
        assert kept.sock is socket_before
    finally:
        kept.close()
        replace(NAMED)
    eventually(lambda: ask(sidecar, "GET", "/sessions", dave_2).status_code == 401, "the keys are as they were")


def failures(server):
    return [line for line in server.log_lines() if line["event"] == "reload_failed"]


@pytest.mark.parametrize("text", ("", "bob\n", f"bob {BOB} timeuot=3\n", f"alice {BOB}\nbob {BOB}\n"))
def test_a_file_that_does_not_load_changes_nothing(sidecar, text):
    before = len(failures(sidecar))
    try:
        replace(text)
        eventually(lambda: len(failures(sidecar)) == before + 1, "the log says why")
        assert "CODEMODE_KEYS_FILE" in failures(sidecar)[-1]["why"] or "same key" in failures(sidecar)[-1]["why"]
        assert ask(sidecar, "GET", "/sessions", ALICE).status_code == 200
        assert ask(sidecar, "GET", "/sessions", "another-key-0000").status_code == 401
    finally:
        loaded = sum(line["event"] == "reloaded" for line in sidecar.log_lines())
        replace(NAMED)
    eventually(lambda: sum(line["event"] == "reloaded" for line in sidecar.log_lines()) > loaded, "it loads again")


# --- starting


def started(**settings):
    """(status, output) of a server that is expected not to start."""
    environment = {"PATH": os.environ["PATH"], "PORT": "0", "HOST": "127.0.0.1", **settings}
    names = ("CODEMODE_SANDBOX", "CODEMODE_IMAGE", "ASAN_OPTIONS", "UBSAN_OPTIONS")
    environment.update({name: os.environ[name] for name in names if name in os.environ})
    done = subprocess.run(
        [CODEMODE, "serve"], env=environment, capture_output=True, text=True, timeout=30 * PATIENCE, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("host", ("0.0.0.0", "::"))
def test_no_listening_to_strangers_without_a_key(host):
    status, text = started(HOST=host)
    assert status == 2 and "CODEMODE_API_KEY" in text and "ALLOW_KEYLESS" in text and host in text


@pytest.mark.parametrize("settings", ({"ALLOW_KEYLESS": "true"}, {"CODEMODE_API_KEY": KEY}), ids=("said so", "a key"))
def test_listening_to_strangers(settings):
    with running_sidecar(HOST="0.0.0.0", **settings) as server:
        warned = [line["event"] for line in server.log_lines() if line["event"] == "serving_without_key"]
        assert len(warned) == ("ALLOW_KEYLESS" in settings)
        port = server.port or next(line["port"] for line in server.log_lines() if line["event"] == "serving")
        answer = requests.get(f"http://127.0.0.1:{port}/sessions", timeout=20 * PATIENCE)
        assert answer.status_code == (200 if "ALLOW_KEYLESS" in settings else 401)


@pytest.mark.parametrize(
    ("settings", "says"),
    (
        ({"CODEMODE_API_KEY": "short-1"}, "CODEMODE_API_KEY: a key has 8 to 512 characters"),
        ({"CODEMODE_API_KEY": "with a blank inside"}, "CODEMODE_API_KEY: a key has printable ASCII"),
        ({"CODEMODE_KEYS_FILE": "/nowhere/keys"}, "CODEMODE_KEYS_FILE: \"/nowhere/keys\": No such file"),
        ({"CODEMODE_API_KEY_FILE": "/dev/null"}, "CODEMODE_API_KEY_FILE: \"/dev/null\" is not a regular file"),
    ),
)
def test_keys_that_cannot_be(settings, says):
    status, text = started(**settings)
    assert status == 2 and says in text
    assert settings.get("CODEMODE_API_KEY", "~") not in text


def test_a_short_key_is_warned_about():
    with running_sidecar(CODEMODE_API_KEY="nine-char") as server:
        assert [line["key"] for line in server.log_lines() if line["event"] == "key_is_short"] == ["default"]
        assert json.loads(ask(server, "GET", "/sessions", "nine-char").text) == {"sessions": []}


@pytest.mark.parametrize("target, warned", [("app.invalid:50051", True), ("127.0.0.1:9", False), ("none", False)])
def test_a_key_that_travels_in_the_clear_is_warned_about(target, warned):
    with running_sidecar(CODEMODE_API_KEY=KEY, CODEMODE_MAIN_APP_TARGET=target, SPARE_WORKERS="1") as server:
        assert any(line["event"] == "key_travels_in_clear" for line in server.log_lines()) == warned
