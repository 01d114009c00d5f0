# SPDX-License-Identifier: Apache-2.0
"""The layers of isolation: what is printed of them, what is demanded, and what a machine without one of them gets."""

import contextlib
import errno
import json
import os
import pathlib
import subprocess
import sys

import pytest

from support import CODEMODE, PATIENCE, eventually, running_sidecar

HERE = pathlib.Path(__file__).resolve().parent
UNSHARE, LANDLOCK_CREATE_RULESET = 272, 444
ALWAYS = {"lifetime", "descriptors", "rlimits", "no_new_privs", "capabilities", "dumpable", "user", "landlock", "seccomp"}


def lacking(number, error):
    """A machine whose kernel answers one system call with an error."""
    return [sys.executable, str(HERE / "without.py"), f"{number}={error}", "--"]


NO_LANDLOCK = lacking(LANDLOCK_CREATE_RULESET, errno.ENOSYS)
NO_NAMESPACES = lacking(UNSHARE, errno.EPERM)


def codemode(*args, launcher=(), **settings):
    kept = {name: os.environ[name] for name in ("CODEMODE_SANDBOX", "CODEMODE_IMAGE") if name in os.environ}
    env = {"PATH": "/usr/bin:/bin", **kept, **settings}
    return subprocess.run([*launcher, str(CODEMODE), *args], env=env, capture_output=True, text=True, timeout=60 * PATIENCE)


def doctor(*args, **how):
    done = codemode("doctor", "--json", *args, **how)
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["fit"] else 1), done
    return report, {layer["name"]: layer for layer in report["layers"]}


def test_the_plan_is_the_one_that_was_agreed():
    """Whoever changes the jail shows it here: codemode plan >tests/e2e/plan.txt"""
    assert codemode("plan").stdout == (HERE / "plan.txt").read_text()


def test_the_plan_as_json():
    plan = json.loads(codemode("plan", "--json").stdout)
    assert ALWAYS == {layer["name"] for layer in plan["layers"] if layer["class"] in ("always", "required")}
    for row in plan["steps"] + plan["limits"] + plan["calls"]:
        assert row["reason"] and row["process"] in ("worker", "zygote"), row
    last = [step["layer"] for step in plan["steps"] if step["process"] == "worker"][-1]
    assert last == "seccomp"


#: A pod's neighbours share its network, and a namespace is not to be had everywhere.
@pytest.mark.parametrize("call", ["socket", "socketpair", "connect", "bind", "listen", "accept4", "io_uring_setup", "execve", "ptrace"])
def test_no_process_of_the_sandbox_has_the_call(call):
    assert call not in {row["name"] for row in json.loads(codemode("plan", "--json").stdout)["calls"]}


def test_doctor_and_metrics_agree(sidecar):
    report, layers = doctor()
    assert report["fit"] and ALWAYS <= {name for name, layer in layers.items() if layer["state"] == "on"}, report
    for name, layer in layers.items():
        assert sidecar.metrics()[f'codemode_layer_active{{layer="{name}"}}'] == (layer["state"] == "on"), name
        assert layer["state"] == "on" or layer["why"], name
    (line,) = [line for line in sidecar.log_lines() if line["event"] == "layers"]
    assert set(line["on"].split(",")) == {name for name, layer in layers.items() if layer["state"] == "on"}


def test_doctor_in_words():
    done = codemode("doctor")
    assert done.returncode == 0 and "The server would start." in done.stdout and "landlock" in done.stdout
    done = codemode("doctor", "--image", "/nonexistent.img")
    assert done.returncode == 1 and "/nonexistent.img" in done.stdout and "would not start" in done.stdout
    assert codemode("doctor", "--sandbox", "/nonexistent").returncode == 1


def refused(*args, **how):
    done = codemode("serve", "--port", "0", *args, **how)
    assert done.returncode == 3, done
    return done.stderr


def test_a_missing_layer_stops_the_start():
    text = refused(launcher=NO_LANDLOCK)
    assert "landlock" in text and "kernel" in text and "WAIVE_LAYERS=landlock" in text, text
    report, layers = doctor(launcher=NO_LANDLOCK)
    assert not report["fit"] and layers["landlock"]["state"] == "missing" and "5.13" in layers["landlock"]["remedy"]


def test_a_missing_layer_stops_a_private_sandbox():
    done = codemode("exec", "-c", "6 * 7", launcher=NO_LANDLOCK)
    assert done.returncode == 3 and done.stdout == "" and done.stderr.count("WAIVE_LAYERS=landlock") == 1, done
    done = codemode("exec", "-c", "6 * 7", launcher=NO_LANDLOCK, WAIVE_LAYERS="landlock")
    assert done.returncode == 0 and done.stdout == "42\n", done


def test_a_missing_layer_can_be_waived():
    with running_sidecar(launcher=NO_LANDLOCK, WAIVE_LAYERS="landlock") as server:
        assert server.execute("6 * 7")["result"] == "42"
        assert server.metrics()['codemode_layer_active{layer="landlock"}'] == 0
        (line,) = [line for line in server.log_lines() if line["event"] == "layers_waived"]
        assert line["level"] == "WARNING" and line["missing"] == "landlock"
    report, layers = doctor(launcher=NO_LANDLOCK, WAIVE_LAYERS="landlock")
    assert report["fit"] and layers["landlock"]["state"] == "waived"


def test_a_waiver_takes_nothing_away():
    report, layers = doctor(WAIVE_LAYERS="landlock,seccomp")
    assert report["fit"] and layers["landlock"]["state"] == layers["seccomp"]["state"] == "on"


def test_an_optional_layer_may_miss_until_it_is_demanded():
    with running_sidecar(launcher=NO_NAMESPACES) as server:
        assert server.execute("6 * 7")["result"] == "42"
        assert server.metrics()['codemode_layer_active{layer="namespaces"}'] == 0
    text = refused(launcher=NO_NAMESPACES, REQUIRE_LAYERS="namespaces")
    assert "namespaces" in text and "user.max_user_namespaces" in text, text


@pytest.mark.parametrize(
    "settings, word",
    [
        ({"WAIVE_LAYERS": "landlok"}, "landlok"),
        ({"WAIVE_LAYERS": "no_new_privs"}, "cannot be waived"),
        ({"REQUIRE_LAYERS": "cgroups"}, "cgroups"),
        ({"WAIVE_LAYERS": "landlock", "REQUIRE_LAYERS": "mdwe,landlock"}, "both"),
    ],
)
def test_wrong_names(settings, word):
    for verb in (["serve", "--port", "0"], ["doctor"]):
        done = codemode(*verb, **settings)
        assert done.returncode == 2 and word in done.stderr, done


def test_a_worker_sees_no_network_device(sidecar, session):
    """With the namespaces there is not even one; without them the filter alone has to do, and does."""
    if not sidecar.metrics()['codemode_layer_active{layer="namespaces"}']:
        session.fails("import socket\nsocket.socket()", "OSError")
        return
    names = [line.split(":")[0].strip() for line in pathlib.Path(f"/proc/{session.pid()}/net/dev").read_text().splitlines()[2:]]
    assert set(names) <= {"lo"}, names


def test_workers_go_before_the_server_when_memory_runs_out(sidecar, session):
    if sidecar.metrics()['codemode_layer_active{layer="oom"}']:
        assert int(pathlib.Path(f"/proc/{session.pid()}/oom_score_adj").read_text()) == 1000
    assert int(pathlib.Path(f"/proc/{sidecar.process.pid}/oom_score_adj").read_text()) < 1000


def test_limits_of_a_worker(session):
    limits = {}
    for line in pathlib.Path(f"/proc/{session.pid()}/limits").read_text().splitlines()[1:]:
        name, soft, hard = line[:26].strip(), *line[26:].split()[:2]
        limits[name] = (soft, hard)
    for name in ("Max core file size", "Max processes", "Max locked memory"):
        assert limits[name] == ("0", "0"), (name, limits[name])
    assert limits["Max open files"] == ("1", "1")
    assert int(limits["Max data size"][1]) < 4 << 30


def own_groups():
    """Folders of control groups in which this machine lets us make one: {controller: path}."""
    found = {}
    for name, path in (("memory", "/sys/fs/cgroup/memory"), ("pids", "/sys/fs/cgroup/pids"), ("cpu", "/sys/fs/cgroup/cpu"), ("all", "/sys/fs/cgroup")):
        controllers = pathlib.Path(path) / "cgroup.controllers"
        usable = "memory" in controllers.read_text() if controllers.exists() else name != "all"
        if usable and os.access(pathlib.Path(path) / "cgroup.procs", os.W_OK):
            found[name] = path
    return {"all": found["all"]} if "all" in found else found


@pytest.mark.unrestricted("the folders of control groups are not in that container")
def test_a_control_group_for_the_workers():
    groups = own_groups()
    if not {"memory", "pids", "cpu"} <= set(groups) and "all" not in groups:
        assert "no control group" in refused(CGROUP="/tmp") and "REQUIRE_LAYERS" in refused(REQUIRE_LAYERS="cgroup")
        return
    settings = {"CGROUP": ",".join(groups.values()), "CGROUP_MEMORY": "1Gi", "CGROUP_CPUS": "2", "REQUIRE_LAYERS": "cgroup"}
    with running_sidecar(**settings) as server:
        session = server.create()
        name = f"codemode-{server.process.pid}"
        for base in groups.values():
            assert str(session.pid()) in (pathlib.Path(base) / name / "cgroup.procs").read_text().split()
            assert str(server.process.pid) not in (pathlib.Path(base) / name / "cgroup.procs").read_text().split()
        files = [path for base in groups.values() for path in (pathlib.Path(base) / name).glob("memory.*")]
        caps = [path.read_text().strip() for path in files if path.name in ("memory.max", "memory.limit_in_bytes")]
        assert caps == [str(1 << 30)]
        assert server.metrics()['codemode_layer_active{layer="cgroup"}'] == 1
        made = [pathlib.Path(base) / name for base in groups.values()]
    eventually(lambda: not any(path.exists() for path in made), "the server removes the group")


@pytest.mark.unrestricted("the folders of control groups are not in that container")
def test_the_kernel_runs_out_of_memory():
    """It ends the worker that has most; that session goes back to the state before, and nobody else notices."""
    groups = own_groups()
    if not {"memory", "pids"} <= set(groups) and "all" not in groups:
        assert "no control group" in refused(CGROUP="/tmp")
        return
    with running_sidecar(CGROUP=",".join(groups.values()), CGROUP_MEMORY="160Mi", MEMORY_LIMIT="1Gi") as server:
        greedy, other = server.create(), server.create()
        greedy.ok("x = 1; rows = list(range(1000))")
        other.ok("y = 1")
        error = greedy.rolled_back("x = 2\nhoard = [bytearray(1 << 20) for _ in range(600)]")
        assert "SIGKILL" in error, error
        assert greedy.value("x, len(rows), 'hoard' in globals()") == "(1, 1000, False)"
        assert other.value("y") == "1" and other.info()["restores"] == 0
        assert server.metric("codemode_zygote_restarts_total") == 0


def test_a_place_that_is_no_control_group(tmp_path):
    assert "no control group" in refused(CGROUP=str(tmp_path))
    with contextlib.suppress(OSError):
        assert not list(tmp_path.iterdir())
