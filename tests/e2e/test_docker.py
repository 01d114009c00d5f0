# SPDX-License-Identifier: Apache-2.0
"""The docker verbs and the completion, with a stand-in for docker that records its arguments."""

import json
import os
import stat
import subprocess

import pytest

from support import CODEMODE, PATIENCE, ROOT
from test_config import GUIDE, KEY

ID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

#: Answers as its environment's DOCKER_ANSWERS says: {first arguments: [exit code, output, error]}; writes one JSON line per call.
STAND_IN = """#!/usr/bin/python3
import json, os, sys, time
answers = json.loads(os.environ["DOCKER_ANSWERS"])
args = sys.argv[1:]
context = sorted(os.listdir(args[-1])) if args[0] == "build" else None
with open(os.environ["DOCKER_CALLS"], "a") as calls:
    keys = {name: value for name, value in os.environ.items() if name.startswith("CODEMODE") or name == "EXTRA"}
    calls.write(json.dumps({"args": args, "environment": keys, "context": context}) + "\\n")
count = sum(1 for line in open(os.environ["DOCKER_CALLS"]) if json.loads(line)["args"][0] == args[0])
for words in (f"{args[0]} {count}", args[0], f"{args[0]} {args[1]}" if len(args) > 1 else ""):
    if words in answers:
        code, output, error = answers[words]
        time.sleep(float(os.environ.get("DOCKER_SLEEP", "0")))
        sys.stdout.write(output)
        sys.stderr.write(error)
        sys.exit(code)
sys.exit(0)
"""


class Docker:
    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        program = self.bin / "docker"
        program.write_text(STAND_IN)
        program.chmod(0o755)
        self.calls_file = folder / "calls"
        self.work = folder / "work"
        self.work.mkdir()

    def run(self, *args, answers=None, path=None, **environment):
        self.calls_file.write_text("")
        env = {"PATH": path or f"{self.bin}:/usr/bin:/bin", "DOCKER_ANSWERS": json.dumps(answers or {}), "DOCKER_CALLS": str(self.calls_file),
               "TMPDIR": str(self.folder), **environment}  # fmt: skip
        kept = {name: os.environ[name] for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS") if name in os.environ}
        return subprocess.run([str(CODEMODE), "docker", *args], cwd=self.work, env={**kept, **env}, capture_output=True, text=True, timeout=60 * PATIENCE)

    @property
    def calls(self):
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    def call(self, verb):
        found = [call for call in self.calls if call["args"][0] == verb]
        assert len(found) == 1, self.calls
        return found[0]


@pytest.fixture
def docker(tmp_path):
    return Docker(tmp_path)


UP = {"ps 1": [0, "", ""], "ps": [0, "Up 2 minutes\n", ""], "run": [0, ID + "\n", ""]}


def values(args, flag):
    return [args[i + 1] for i, arg in enumerate(args) if arg == flag]


def test_check(docker):
    done = docker.run("check", answers={"info": [0, "24.0.7\nUbuntu 22.04\n", ""]})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "✓ Docker is available and running\n\nDocker Information:\n  Version: 24.0.7\n  OS: Ubuntu 22.04\n"
    done = docker.run("check", answers={"info": [1, "\n\n", "Cannot connect to the Docker daemon\n"]})
    assert done.returncode == 1 and done.stdout == "" and "✗ Docker is not running: Cannot connect" in done.stderr
    done = docker.run("check", path="/nonexistent")
    assert done.returncode == 1 and done.stdout == "" and "✗ Docker is not installed" in done.stderr


@pytest.mark.parametrize("verb", [["status"], ["stop"], ["remove"], ["start", "--api-key", KEY], ["build"]])
def test_without_docker(docker, verb):
    done = docker.run(*verb, path="/usr/bin-of-nobody:/bin-of-nobody")
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("codemode: "), done


def test_status(docker):
    done = docker.run("status", answers={"ps": [0, "Up 2 minutes\n", ""]})
    assert (done.returncode, done.stdout) == (0, "Container 'codemode-executor' status:\n  Status: Up 2 minutes\n")
    assert docker.calls[0]["args"] == ["ps", "--all", "--filter", "name=^/?codemode-executor$", "--format", "{{.Status}}"]
    done = docker.run("status", "-n", "my.executor")
    assert (done.returncode, done.stdout) == (1, "Container 'my.executor' does not exist\n")
    assert "name=^/?my[.]executor$" in docker.calls[0]["args"]
    done = docker.run("status", answers={"ps": [1, "", "permission denied\n"]})
    assert done.returncode == 1 and "permission denied" in done.stderr


def test_stop_and_remove(docker):
    up = {"ps": [0, "Up 2 minutes\n", ""], "stop": [0, "x\n", ""], "rm": [0, "x\n", ""]}
    done = docker.run("stop", "--name", "mine", answers=up)
    assert (done.returncode, done.stdout) == (0, "✓ Container 'mine' stopped\n") and docker.call("stop")["args"] == ["stop", "-t", "30", "mine"]
    done = docker.run("remove", "--name", "mine", answers=up)
    assert (done.returncode, done.stdout) == (0, "✓ Container 'mine' removed\n") and docker.call("rm")["args"] == ["rm", "--force", "mine"]
    for verb in ("stop", "remove"):
        done = docker.run(verb)
        assert done.returncode == 1 and "does not exist" in done.stdout and len(docker.calls) == 1


@pytest.mark.parametrize("name", ["--privileged", "a b", "a;b", "", "x" * 200, ".hidden"])
def test_names_that_are_none(docker, name):
    for verb in ("status", "stop", "remove"):
        done = docker.run(verb, f"--name={name}")
        assert done.returncode == 2 and docker.calls == []


def test_start(docker):
    done = docker.run("start", answers=UP, CODEMODE_API_KEY=KEY)
    assert done.returncode == 0, done
    assert done.stdout == (
        "✓ Executor container started\n\n  Container ID: 0123456789ab\n  Name: codemode-executor\n  Port: 8001\n"
        "  Status: Up 2 minutes\n  ToolService: host.docker.internal:50051\n  Executor URL: http://localhost:8001\n"
    )
    call = docker.call("run")
    args = call["args"]
    assert args[-1] == "codemode-executor:latest" and "--detach" in args and "--read-only" in args and "--privileged" not in args
    assert values(args, "--name") == ["codemode-executor"] and values(args, "--publish") == ["8001:8001"]
    assert values(args, "--memory") == [str(512 << 20)] and values(args, "--cpus") == ["1.0"]
    assert values(args, "--cap-drop") == ["ALL"] and values(args, "--security-opt") == ["no-new-privileges:true"]
    assert values(args, "--user") == ["65534:65534"] and values(args, "--tmpfs") == ["/tmp:rw,noexec,nosuid,size=100m"]
    assert values(args, "--add-host") == ["host.docker.internal:host-gateway"] and values(args, "--mount") == []
    assert values(args, "--env") == ["CODEMODE_API_KEY", "CODEMODE_MAIN_APP_TARGET=host.docker.internal:50051"]
    assert call["environment"]["CODEMODE_API_KEY"] == KEY and KEY not in " ".join(args) + done.stdout + done.stderr
    assert [call["args"][0] for call in docker.calls] == ["image", "ps", "run", "ps"]


def test_start_as_the_guide_does(docker):
    """Several packages behind one flag, and a configuration file."""
    (docker.work / "codemode.yaml").write_text(GUIDE.replace("512Mi", "256Mi") + "config:\n  extra: ${EXTRA}\n")
    done = docker.run("start", "--config", "./codemode.yaml", "--packages", "numpy", "pandas", "--name", "my-executor", "--port", "8005",
                      "-p", "scikit-learn", answers=UP, CODEMODE_API_KEY=KEY, EXTRA="more")  # fmt: skip
    assert done.returncode == 0 and "Executor URL: http://localhost:8005\n" in done.stdout, done
    call = docker.call("run")
    assert values(call["args"], "--mount") == [f"type=bind,source={docker.work}/codemode.yaml,target=/app/codemode.yaml,readonly"]
    assert values(call["args"], "--env")[2:] == ["EXTRA", "CODEMODE_PACKAGES=numpy,pandas,scikit-learn"]
    assert call["environment"]["EXTRA"] == "more"
    assert values(call["args"], "--memory") == [str(256 << 20)] and values(call["args"], "--publish") == ["8005:8001"]
    assert "nothing is installed" in done.stderr and "ModuleNotFoundError" in done.stderr


def test_start_with_requirements_and_a_sidecar_file(docker):
    (docker.work / "requirements.txt").write_text("numpy>=1.24.0\n")
    (docker.work / "codemode-sidecar.yaml").write_text(f"api_key: {KEY}\nmain_app_grpc_target: app:50051\n")
    done = docker.run("start", "-r", "requirements.txt", answers=UP)
    assert done.returncode == 0 and "nothing is installed" in done.stderr and "ToolService: app:50051\n" in done.stdout, done
    args = docker.call("run")["args"]
    assert values(args, "--mount") == [
        f"type=bind,source={docker.work}/codemode-sidecar.yaml,target=/app/codemode-sidecar.yaml,readonly",
        f"type=bind,source={docker.work}/requirements.txt,target=/app/requirements.txt,readonly",
    ]
    assert values(args, "--env") == ["CODEMODE_MAIN_APP_TARGET=app:50051"] and KEY not in " ".join(args)


def test_start_brings_certificates(docker):
    (docker.work / "certs").mkdir()
    for name in ("server.crt", "server.key"):
        (docker.work / "certs" / name).write_text("")
    text = f"api_key: {KEY}\ntls:\n  enabled: true\n  mode: custom\n  cert_file: ./certs/server.crt\n  key_file: {docker.work}/certs/server.key\n"
    (docker.work / "codemode-sidecar.yaml").write_text(text)
    assert docker.run("start", answers=UP).returncode == 0
    assert values(docker.call("run")["args"], "--mount")[1:] == [
        f"type=bind,source={docker.work}/certs/server.crt,target=/app/certs/server.crt,readonly",
        f"type=bind,source={docker.work}/certs/server.key,target={docker.work}/certs/server.key,readonly",
    ]
    for wrong in ("../work/certs/server.crt", "certs/missing.crt"):
        (docker.work / "codemode-sidecar.yaml").write_text(text.replace("./certs/server.crt", wrong))
        done = docker.run("start", answers=UP)
        assert done.returncode == 1 and wrong in done.stderr and "run" not in [call["args"][0] for call in docker.calls], done


def test_start_does_not(docker):
    done = docker.run("start")
    assert done.returncode == 1 and "export CODEMODE_API_KEY" in done.stderr and docker.calls == []
    done = docker.run("start", "--api-key", KEY, answers={"image": [1, "", "No such image"]})
    assert done.returncode == 1 and "codemode docker build" in done.stderr and len(docker.calls) == 1
    done = docker.run("start", "--api-key", KEY, answers={"ps": [0, "Exited (0) 3 days ago\n", ""]})
    assert done.returncode == 1 and "exists already (Exited (0) 3 days ago)" in done.stderr and "codemode docker remove" in done.stderr
    assert "run" not in [call["args"][0] for call in docker.calls]
    done = docker.run("start", "--api-key", KEY, answers={"run": [125, "", "port is already allocated\n"]})
    assert done.returncode == 1 and "port is already allocated" in done.stderr and KEY not in done.stderr
    done = docker.run("start", "--api-key", KEY, answers={**UP, "ps": [0, "Exited (2) 1 second ago\n", ""]})
    assert done.returncode == 1 and "docker logs codemode-executor" in done.stderr
    (docker.work / "bad.yaml").write_text("wrong: 1\n")
    done = docker.run("start", "--api-key", KEY, "-c", "bad.yaml")
    assert done.returncode == 1 and "bad.yaml:1:1: wrong: unknown key" in done.stderr and docker.calls == []
    for args in (["--port", "0"], ["--port", "80:80"], ["--image", "--privileged"], ["-p"], ["--name", "-x"], ["--nmae", "x"], ["extra"]):
        done = docker.run("start", "--api-key", KEY, *args)
        assert done.returncode == 2 and docker.calls == [], (args, done)
    assert "did you mean --name?" in docker.run("start", "--nmae", "x").stderr


def test_build(docker):
    done = docker.run("build")
    assert done.returncode == 0 and done.stdout.endswith("✓ Built codemode-executor:latest\n"), done
    call = docker.call("build")
    assert values(call["args"], "--tag") == ["codemode-executor:latest"] and values(call["args"], "--build-arg")[0].startswith("DEBIAN=1")
    assert call["context"] == ["Dockerfile", "codemode", "codemode-sandbox", "guest"]
    assert not os.path.exists(call["args"][-1])
    done = docker.run("build", "-i", "registry:5000/mine", "-v", "7", "-f", str(ROOT / "deploy/Dockerfile"))
    call = docker.call("build")
    assert values(call["args"], "--tag") == ["registry:5000/mine:7"] and values(call["args"], "--file") == [str(ROOT / "deploy/Dockerfile")]
    done = docker.run("build", answers={"build": [17, "", "no space left\n"]})
    assert done.returncode == 1 and "no space left" in done.stderr and not os.path.exists(docker.calls[0]["args"][-1])


def test_assets(docker):
    done = docker.run("assets", "--dest", "out")
    names = ["Dockerfile", "docker-compose.yml", "README.md", "codemode-sidecar.yaml.template", ".env.template"]
    assert done.returncode == 0 and done.stdout.splitlines() == [f"✓ out/{name}" for name in names]
    for name in names:
        assert (docker.work / "out" / name).read_bytes() == (ROOT / "deploy" / name).read_bytes()
    (docker.work / "out" / "README.md").unlink()
    done = docker.run("assets", "--dest", "out")
    assert done.returncode == 1 and "--force" in done.stderr and not (docker.work / "out" / "README.md").exists()
    assert docker.run("assets", "--dest", "out", "--force").returncode == 0
    assert docker.run("assets").returncode == 2
    assert docker.run("assets", "--dest", "out/README.md").returncode == 1


def test_env(docker):
    (docker.work / "codemode.yaml").write_text(GUIDE + "security:\n  blocked_imports: [pandas, os.remove]\n  safe_builtins: []\n")
    done = docker.run("env", CODEMODE_API_KEY=KEY)
    assert (done.returncode, done.stdout) == (0, "✓ Created .env from codemode.yaml\n")
    lines = [line for line in (docker.work / ".env").read_text().splitlines() if not line.startswith("#")]
    assert lines == ["CODEMODE_EXECUTOR_URL=http://localhost:8001", f"CODEMODE_API_KEY={KEY}", "CODEMODE_CODE_TIMEOUT=30",
                     "CODEMODE_MAX_CODE_LENGTH=10000", "MEMORY_LIMIT=512Mi", "CODEMODE_BLOCKED_IMPORTS=pandas,os.remove"]  # fmt: skip
    assert stat.S_IMODE((docker.work / ".env").stat().st_mode) == 0o600
    done = docker.run("env", CODEMODE_API_KEY="other")
    assert done.returncode == 1 and KEY in (docker.work / ".env").read_text()
    assert docker.run("env", "-f", "-o", ".env", CODEMODE_API_KEY="two\nlines").returncode == 1
    assert KEY in (docker.work / ".env").read_text()
    assert docker.run("env", "-c", "missing.yaml", "-o", "x").returncode == 1 and not (docker.work / "x").exists()


def test_groups_and_their_verbs(docker):
    done = docker.run()
    assert done.returncode == 2 and "which one?" in done.stderr
    done = docker.run("--help")
    assert done.returncode == 0 and "docker start" in done.stdout and "serve" not in done.stdout
    done = docker.run("start", "--help")
    assert done.returncode == 0 and "-p, --packages NAME..." in done.stdout and docker.calls == []
    done = docker.run("statsu")
    assert done.returncode == 2 and "did you mean docker status?" in done.stderr


def test_a_docker_that_says_too_much(docker):
    """More than pipes and buffers hold: it does not block, and little of it is shown."""
    (docker.bin / "docker").write_text("#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' e >&2\nhead -c 1000000 /dev/zero | tr '\\0' o\nexit 1\n")
    done = docker.run("status")
    assert done.returncode == 1 and done.stdout == "" and 1000 < len(done.stderr) < 5000


COMPLETIONS = [
    ([""], {"serve", "docker", "init", "validate", "--help"}, {"docker start"}),
    (["do"], {"docker", "doctor"}, {"serve"}),
    (["docker", ""], {"check", "build", "start", "status", "stop", "remove", "assets", "env"}, {"serve"}),
    (["docker", "sta"], {"start", "status"}, {"stop"}),
    (["docker", "start", "--"], {"--packages", "--name"}, {"--json", "-n"}),
    (["docker", "start", "--name", ""], set(), {"--port"}),
    (["serve", "--log-level", ""], {"DEBUG", "INFO", "WARNING", "ERROR"}, set()),
    (["serve", "--max-s"], {"--max-sessions"}, {"--port"}),
    (["serve", "-c", "file"], {"file.yaml"}, set()),
    (["exec", "--on-error", ""], {"keep", "rollback"}, {"--url"}),
    (["init", ""], {"client", "sidecar", "--force"}, set()),
    (["init", "client", "-"], {"--force"}, {"sidecar"}),
    (["config", "print-defaults", ""], {"sidecar", "client", "unified"}, {"show"}),
    (["completion", ""], {"bash", "zsh"}, set()),
    (["docker", "assets", "--dest", "fold"], {"folder"}, {"file.yaml"}),
]  # fmt: skip


def test_completion(tmp_path):
    """Bash's own completion function, asked as bash asks it."""
    (tmp_path / "file.yaml").write_text("")
    (tmp_path / "folder").mkdir()
    script = [f"source <({CODEMODE} completion bash)"]
    for words, _, _ in COMPLETIONS:
        quoted = " ".join(f"'{word}'" for word in ["codemode", *words])
        script.append(f"COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _codemode; (IFS=,; echo \"${{COMPREPLY[*]}}\")")
    done = subprocess.run(["bash", "--norc", "-c", "\n".join(script)], cwd=tmp_path, capture_output=True, text=True, timeout=30 * PATIENCE)
    assert done.returncode == 0 and done.stderr == ""
    for (words, present, absent), line in zip(COMPLETIONS, done.stdout.split("\n")):
        offered = set(line.split(","))
        assert present <= offered and not absent & offered, (words, offered)
        assert all(word.startswith(words[-1]) for word in offered if word), (words, offered)


def test_completion_of_what():
    assert subprocess.run([str(CODEMODE), "completion"], capture_output=True, timeout=30).returncode == 2
    assert subprocess.run([str(CODEMODE), "completion", "fish"], capture_output=True, timeout=30).returncode == 2
    zsh = subprocess.run([str(CODEMODE), "completion", "zsh"], capture_output=True, text=True, timeout=30)
    assert zsh.returncode == 0 and "bashcompinit" in zsh.stdout
