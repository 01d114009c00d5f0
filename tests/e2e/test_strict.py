# SPDX-License-Identifier: Apache-2.0
"""`security.policy`: what a strict server refuses, and that a request may ask for it of a server that is not strict.
What the check itself sees is the business of tests/driver/test_strict.py."""

import os
import subprocess

import pytest

from support import CODEMODE, DEFAULTS, Sidecar

SETTINGS = {
    "CODEMODE_SECURITY_POLICY": "strict",
    "CODEMODE_BLOCKED_IMPORTS": "decimal, os.remove",
    "CODEMODE_ALLOWED_IMPORTS": "urllib.parse",
    "CODEMODE_SAFE_BUILTINS": "open",
    "MAX_CODE_LENGTH": "1000",
}

REFUSED = {
    "import subprocess": "Blocked import(s) detected: subprocess (line 1)",
    'eval("1")': "Blocked pattern(s) detected: eval( (line 1)",
    'import os\nos.system("ls")': "Blocked import(s) detected: os.system (line 2)",
    "import decimal": "Blocked import(s) detected: decimal (line 1)",
    'import os\nos.remove("f")': "Blocked import(s) detected: os.remove (line 2)",
    "import urllib.request": "Blocked import(s) detected: urllib (line 1)",
    "x = 1\nwhile True:\n    x += 1": "Suspicious pattern(s) detected: while True: (line 2)",
}
ALLOWED = {
    'import re\nre.compile("a").pattern': "'a'",
    'import ast\nast.literal_eval("[1]")': "[1]",
    'import os\nlen(os.listdir("."))': "0",
    "from urllib.parse import quote\nquote(' ')": "'%20'",
    "open('f', 'w').write('a')": "1",
    "'import subprocess; eval(1)'  # exec(1)": "'import subprocess; eval(1)'",
}


def check_refusal(reply, reason):
    assert reply["success"] is False and reply["error_type"] == "SecurityViolation", reply
    assert reply["error"] == f"Security violation: {reason}", reply
    assert reply["state"] == "kept" and reply["result"] is None and reply["traceback"] is None, reply
    assert reply["stdout"] == reply["stderr"] == "", reply


@pytest.mark.parametrize("code", REFUSED)
def test_refused(shared, code):
    check_refusal(shared.run(code), REFUSED[code])


def test_allowed(session):
    for code, value in ALLOWED.items():
        assert session.value(code) == value


def test_the_state_stays(session):
    session.ok("x = 42\nimport os as o")
    reply = session.run('print("here")\nx = 1\no.popen("ls")', context={"x": 7, "y": 8})
    check_refusal(reply, "Blocked import(s) detected: os.popen (line 3)")
    assert session.value("x") == "42"
    session.fails("y", "NameError")


def test_nobody_asks_for_less(shared):
    check_refusal(shared.run('eval("1")', policy="isolate"), "Blocked pattern(s) detected: eval( (line 1)")


def test_one_execution_without_a_session(sidecar):
    reply = sidecar.request("POST", "/execute", json={"code": "result = 5\nexec('')"}).json()
    check_refusal(reply, "Blocked pattern(s) detected: exec( (line 2)")
    reply = sidecar.request("POST", "/execute", json={"code": "result = 5\n6"}).json()
    assert reply["result"] == "5", reply


def test_the_rules_take_nothing_of_the_code_s_length(shared):
    assert shared.value("7" + " " * 999) == "7"
    assert shared.post("7" + " " * 1000).status_code == 413


def test_lines_of_errors_are_the_code_s(shared):
    assert 'line 2, in <module>\n    1 / 0\n' in shared.fails("x = 1\n1 / 0", "ZeroDivisionError")["traceback"]


def test_a_request_asks_for_more():
    """On a server that isolates, the policy of a request holds for this request alone."""
    server = Sidecar()
    try:
        session = server.create()
        assert session.value('eval("1 + 1")') == "2"
        check_refusal(session.run('eval("1")', policy="strict"), "Blocked pattern(s) detected: eval( (line 1)")
        check_refusal(session.run("import decimal, pty", policy="strict"), "Blocked import(s) detected: pty (line 1)")
        assert session.value('eval("1 + 1")', policy="isolate") == session.value('eval("2")', policy=None) == "2"
        answer = session.post("1", policy="Strict")
        assert answer.status_code == 422 and answer.json()["detail"] == 'policy: must be "strict" or "isolate"'
        session.delete()
        server.check_clean()
    finally:
        status = server.stop()
    assert status == 0


def test_the_command_line_follows_the_setting():
    environment = {**os.environ, **DEFAULTS, **SETTINGS, "CODEMODE_URL": ""}
    run = subprocess.run([str(CODEMODE), "exec", "-c", 'eval("1")'], env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "Security violation: Blocked pattern(s) detected: eval( (line 1)" in run.stderr, run
