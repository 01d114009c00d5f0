# SPDX-License-Identifier: Apache-2.0
"""Metrics and logs."""

import re

import pytest

from streams import Held
from support import SECRET, eventually, running_sidecar

TYPES = {
    "wasm_sessions_active": "gauge",
    "wasm_execution_duration_seconds": "histogram",
    "wasm_execution_errors_total": "counter",
    "codemode_build_info": "gauge",
    "codemode_executions_running": "gauge",
    "codemode_executions_queued": "gauge",
    "codemode_executions_total": "counter",
    "codemode_worker_deaths_total": "counter",
    "codemode_zygote_restarts_total": "counter",
}

#: A correlation id of the greatest length.
FIND_ME = "find-me-".ljust(128, "1")

SAMPLE = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_]+="(\\.|[^"\\])*"(,[a-zA-Z_]+="(\\.|[^"\\])*")*\})? (-?[0-9.e+-]+|\+Inf|NaN)')


def test_exposition(sidecar):
    answer = sidecar.request("GET", "/metrics")
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert answer.text.endswith("\n")
    for line in lines:
        assert line.startswith(("# HELP ", "# TYPE ")) or SAMPLE.fullmatch(line), line
    typed = dict(line.split(" ")[2:4] for line in lines if line.startswith("# TYPE "))
    for name, kind in TYPES.items():
        assert typed.get(name) == kind, name
        assert any(line.startswith(f"# HELP {name} ") for line in lines), name
    samples = [line.rsplit(" ", 1)[0] for line in lines if not line.startswith("#")]
    assert len(samples) == len(set(samples))


def test_build_info_names_the_version(sidecar):
    version = sidecar.request("GET", "/version").json()["version"]
    info = [line for line in sidecar.request("GET", "/metrics").text.splitlines() if line.startswith("codemode_build_info{")]
    assert len(info) == 1 and f'version="{version}"' in info[0] and info[0].endswith(" 1")


def test_version_names_the_image_and_its_python(sidecar, session):
    about = sidecar.request("GET", "/version").json()
    assert session.value("import platform\nplatform.python_version()") == repr(about["python"])
    assert re.fullmatch("[0-9a-f]{16}-[0-9a-f]{16}", about["image"]), about
    started = [line for line in sidecar.log_lines() if line["event"] == "zygote_ready"]
    assert {line["image"] for line in started} == {about["image"]}
    assert f'image="{about["image"]}"' in sidecar.request("GET", "/metrics").text


def test_gauge_follows_the_sessions(sidecar):
    before = sidecar.metric("wasm_sessions_active")
    made = [sidecar.create() for _ in range(3)]
    assert sidecar.metric("wasm_sessions_active") == before + 3
    for session in made:
        session.delete()
    assert sidecar.metric("wasm_sessions_active") == before


def test_counters_follow_the_executions(sidecar, session):
    names = ("wasm_execution_duration_seconds_count", "wasm_execution_errors_total", "codemode_executions_total")
    before = [sidecar.metric(name) for name in names]
    session.ok("1")
    session.run("1/0")
    session.run("while True: pass", timeout=0.2)
    assert [sidecar.metric(name) for name in names] == [before[0] + 3, before[1] + 2, before[2] + 3]
    outcomes = sidecar.metrics()
    for outcome in ("ok", "error", "timeout"):
        assert outcomes[f'codemode_executions_total{{outcome="{outcome}"}}'] >= 1


def test_running_and_queued(sidecar, session):
    work = Held(session)
    eventually(lambda: sidecar.metric("codemode_executions_running") == 1, "one runs")
    queued = session.in_background("1")
    eventually(lambda: sidecar.metric("codemode_executions_queued") == 1, "one is queued")
    work.result(), queued.result()
    assert sidecar.metric("codemode_executions_running") == sidecar.metric("codemode_executions_queued") == 0


def test_histogram(sidecar, session):
    session.ok("import time; time.sleep(0.05)")
    found = sidecar.metrics()
    name = "wasm_execution_duration_seconds"
    buckets = [(key, value) for key, value in found.items() if key.startswith(name + "_bucket")]
    bounds = [float(re.search(r'le="([^"]+)"', key).group(1)) for key, _ in buckets]
    counts = [value for _, value in buckets]
    assert bounds == sorted(bounds) and bounds[-1] == float("inf")
    assert bounds[0] <= 0.0001 and bounds[-2] >= 60
    assert counts == sorted(counts) and counts[-1] == found[name + "_count"]
    assert found[name + "_sum"] >= 0.05


def test_correlation_id_comes_back(sidecar, session):
    given = "trace-7f3a:1"
    answer = sidecar.request("POST", session.path + "/execute", json={"code": "1"}, headers={"x-correlation-id": given})
    assert answer.headers["x-correlation-id"] == given
    answer = sidecar.request("GET", "/nothing", headers={"x-correlation-id": given})
    assert answer.headers["x-correlation-id"] == given
    made = {sidecar.request("GET", "/health").headers["x-correlation-id"] for _ in range(5)}
    assert len(made) == 5 and all(made)


@pytest.mark.parametrize("given", ["a" * 10_000, "two words", 'quote"', "<script>"])
def test_odd_correlation_ids_do_no_harm(sidecar, session, given):
    answer = sidecar.request("POST", session.path + "/execute", json={"code": "1"}, headers={"x-correlation-id": given})
    assert answer.headers.get("x-correlation-id", "") == given or len(answer.headers["x-correlation-id"]) <= 128
    assert session.value("1") == "1"
    sidecar.log_lines()


def test_log_lines(sidecar):
    session = sidecar.create()
    answer = sidecar.request(
        "POST",
        session.path + "/execute",
        json={"code": "word_in_code = 'text in code'\nprint('text in output')\nraise ValueError('text in error')", "context": {"v": "text in context"}},
        headers={"x-correlation-id": FIND_ME},
    )
    execution = answer.json()["execution_id"]
    session.delete()

    def of_the_execution():
        return [line for line in sidecar.log_lines() if line.get("correlation_id") == FIND_ME]

    found = eventually(of_the_execution, "the execution is logged")
    assert any(line.get("session") == session.id and line.get("exec") == execution for line in found), found
    for line in sidecar.log_lines():
        assert {"ts", "level", "event"} <= set(line), line
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", line["ts"])
    text = sidecar.log_text()
    for secret in ("word_in_code", "text in code", "text in output", "text in error", "text in context", SECRET):
        assert secret not in text
    events = {line["event"] for line in sidecar.log_lines() if line.get("session") == session.id}
    assert len(events) >= 3, events


def test_log_level():
    with running_sidecar(LOG_LEVEL="ERROR") as server:
        server.create().run("1/0")
        assert [line for line in server.log_lines() if line["level"] in ("DEBUG", "INFO")] == []
    with running_sidecar(LOG_LEVEL="DEBUG") as server:
        server.create().ok("1")
        assert any(line["level"] == "DEBUG" for line in server.log_lines())
