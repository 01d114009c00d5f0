# SPDX-License-Identifier: Apache-2.0
"""Configuration files: what they set, what wins over them, what is wrong with them, and SIGHUP."""

import os
import signal
import subprocess

import pytest

from support import CODEMODE, PATIENCE, ROOT, eventually, running_sidecar

KEY = "a-key-that-nobody-may-see-7141"

#: As the deployment guide shows it.
GUIDE = """\
project:
  name: my-project

framework:
  type: crewai
  auto_discover: true

executor:
  url: http://localhost:8001
  api_key: ${CODEMODE_API_KEY}
  limits:
    code_timeout: 30
    max_code_length: 10000
    memory_limit: "512Mi"
"""

#: The guide's long form of `executor`.
GUIDE_EXECUTOR = """\
project:
  name: production-app
executor:
  url: http://localhost:8001
  api_key: ${CODEMODE_API_KEY}
  timeout: 35

  # Resource limits
  limits:
    code_timeout: 30          # Max execution time (seconds)
    max_code_length: 10000    # Max code length (characters)
    memory_limit: "512Mi"     # Container memory limit

  # Filesystem access (optional)
  filesystem:
    workspace:
      mount: /workspace
      readonly: true
    sandbox:
      mount: /sandbox
      readonly: false
    outputs:
      mount: /outputs
      readonly: false

  # Network configuration
  network:
    mode: none              # Options: none, restricted, all
    allowed_domains: []     # If mode=restricted
    blocked_domains: []

  # Execution behavior
  execution:
    allow_direct_execution: false
    allowed_commands: []    # If allow_direct_execution=true
"""


def codemode(*args, cwd, **environment):
    kept = {name: os.environ[name] for name in ("CODEMODE_SANDBOX", "CODEMODE_IMAGE") if name in os.environ}
    env = {"PATH": "/usr/bin:/bin", **kept, **environment}
    return subprocess.run([str(CODEMODE), *args], cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30 * PATIENCE)


def shown(cwd, *args, **environment):
    """{setting: (value, source)} of `config show`."""
    done = codemode("config", "show", *args, cwd=cwd, **environment)
    assert done.returncode == 0, done
    rows = [line for line in done.stdout.splitlines() if line and not line.startswith("#")]
    return {name: (value.strip('"'), source) for name, rest in (row.split(": ", 1) for row in rows) for value, source in [rest.rsplit("  # ", 1)]}


def test_init_writes_the_file_of_the_guide(tmp_path):
    done = codemode("init", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("✓ Created codemode.yaml\n"), done
    assert (tmp_path / "codemode.yaml").read_text() == GUIDE
    (tmp_path / "codemode.yaml").write_text("mine")
    done = codemode("init", cwd=tmp_path)
    assert done.returncode == 1 and "codemode.yaml is there already" in done.stderr and (tmp_path / "codemode.yaml").read_text() == "mine"
    for force in ("-f", "--force"):
        assert codemode("init", force, cwd=tmp_path).returncode == 0
        assert (tmp_path / "codemode.yaml").read_text() == GUIDE
    assert os.listdir(tmp_path) == ["codemode.yaml"]
    assert codemode("init-legacy", cwd=tmp_path).returncode == 1


def test_what_init_writes_is_right(tmp_path):
    for verb, name in ((["init"], "codemode.yaml"), (["init", "client"], "codemode-client.yaml"), (["init", "sidecar"], "codemode-sidecar.yaml")):
        assert codemode(*verb, cwd=tmp_path).returncode == 0
        assert codemode("validate", "-c", name, cwd=tmp_path, CODEMODE_API_KEY=KEY).returncode == 0


def test_validate(tmp_path):
    (tmp_path / "codemode.yaml").write_text(GUIDE)
    done = codemode("validate", cwd=tmp_path, CODEMODE_API_KEY=KEY)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == "✓ Configuration is valid: codemode.yaml\n\n  Project: my-project\n  Framework: crewai\n"
    done = codemode("validate", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert "codemode.yaml:10:12: the variable CODEMODE_API_KEY is not set" in done.stderr


def test_validate_the_long_form_of_the_guide(tmp_path):
    (tmp_path / "long.yaml").write_text(GUIDE_EXECUTOR)
    done = codemode("validate", "--config", "long.yaml", cwd=tmp_path, CODEMODE_API_KEY=KEY)
    assert done.returncode == 0 and "Project: production-app" in done.stdout, done
    assert "warning: long.yaml:17:14: executor.filesystem: no folder of the machine is mounted" in done.stderr


def test_validate_tells_every_problem(tmp_path):
    (tmp_path / "codemode.yaml").write_text(GUIDE.replace("code_timeout: 30", "code_timeout: 301\n    memmory: 3").replace("name: my", "nam: my"))
    done = codemode("validate", cwd=tmp_path, CODEMODE_API_KEY=KEY)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines() == [
        "codemode.yaml:2:3: project.nam: unknown key of codemode.yaml; did you mean name?",
        'codemode.yaml:12:19: executor.limits.code_timeout: "301" is not a time such as 30 or 250ms from 1 to 300',
        "codemode.yaml:13:5: executor.limits.memmory: unknown key of codemode.yaml",
        "codemode.yaml:1:1: project.name: is required, e.g. my-project",
        "codemode: codemode.yaml has 4 problems",
    ]


@pytest.mark.parametrize(
    "change, problem",
    [
        (("    memory_limit", "  network: {mode: all}\n    memory_limit"), "not YAML"),
        (("  limits:", "  network:\n    mode: restricted\n  limits:"), "12:11: executor.network.mode: not supported: only none is"),
        (("  limits:", "  execution:\n    allow_direct_execution: true\n  limits:"), "12:29: executor.execution.allow_direct_execution: not supported"),
        (("  limits:", "  execution:\n    allowed_commands: [ls]\n  limits:"), "12:23: executor.execution.allowed_commands: not supported"),
        (("  limits:", "  filesystem:\n    workspace:\n      mount: /srv\n  limits:"), "13:14: executor.filesystem.workspace.mount: not supported"),
        (("30", "[30]"), "12:19: executor.limits.code_timeout: wants a time such as 30 or 250ms, not a list"),
        (('"512Mi"', "lots"), '14:19: executor.limits.memory_limit: "lots" is not a size such as 512Mi'),
        (("my-project", "&x my-project"), "2:9: anchors are not supported"),
        (("framework:", "project:\n  name: two\nframework:"), "4:1: project: this key is there twice"),
        (("${CODEMODE_API_KEY}", "${A:-${B}}"), "10:12: a variable inside another one's default is not supported"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_starts(tmp_path, change, problem):
    (tmp_path / "codemode.yaml").write_text(GUIDE.replace(*change))
    done = codemode("validate", cwd=tmp_path, CODEMODE_API_KEY=KEY)
    assert done.returncode == 1 and done.stdout == "" and problem in done.stderr, done
    done = codemode("serve", cwd=tmp_path, CODEMODE_API_KEY=KEY)
    assert done.returncode == 2 and done.stdout == "" and problem in done.stderr, done


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty").write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name, problem in (("missing", "missing: No such file"), (".", ".: not a regular file"), ("pipe", "pipe: not a regular file"),
                          ("bytes", "bytes: "), ("empty", "executor.url: is required")):  # fmt: skip
        done = codemode("validate", "-c", name, cwd=tmp_path)
        assert done.returncode == 1 and problem in done.stderr and done.stdout == "", done
        assert codemode("serve", "-c", name, cwd=tmp_path).returncode == 2
    assert codemode("validate", "--kind", "other", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize("kind", ["sidecar", "client", "unified"])
def test_print_defaults(tmp_path, kind):
    done = codemode("config", "print-defaults", kind, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    (tmp_path / "file.yaml").write_text(done.stdout)
    done = codemode("validate", "-c", "file.yaml", "--kind", kind, cwd=tmp_path, CODEMODE_API_KEY=KEY)
    assert done.returncode == 0, done


def test_print_defaults_of_what(tmp_path):
    assert codemode("config", "print-defaults", cwd=tmp_path).stdout == codemode("config", "print-defaults", "unified", cwd=tmp_path).stdout
    assert codemode("config", "print-defaults", "all", cwd=tmp_path).returncode == 2


def test_a_file_with_all_defaults_changes_nothing(tmp_path):
    """What `print-defaults` prints is what a file has that says nothing."""
    (tmp_path / "full.yaml").write_text(codemode("config", "print-defaults", "sidecar", cwd=tmp_path).stdout)
    (tmp_path / "sidecar.yaml").write_text("")
    values = [{name: value for name, (value, _) in shown(tmp_path, "-c", name).items()} for name in ("full.yaml", "sidecar.yaml")]
    assert values[0] == values[1]


def test_precedence(tmp_path):
    (tmp_path / "codemode-sidecar.yaml").write_text("host: 127.0.0.2\nlimits: {code_timeout: 7}\nsettings: {max_sessions: 5, session_ttl: 60}\n")
    rows = shown(tmp_path, "--session-ttl", "80", MAX_SESSIONS="6", SESSION_TTL="70")
    assert rows["host"] == ("127.0.0.2", "codemode-sidecar.yaml:1 (host)")
    assert rows["execution_timeout"] == ("7", "codemode-sidecar.yaml:2 (limits.code_timeout)")
    assert rows["max_sessions"] == ("6", "variable MAX_SESSIONS")
    assert rows["session_ttl"] == ("80", "flag --session-ttl")
    assert rows["max_code_length"] == ("10000", "default of such a file (limits.max_code_length)")
    assert rows["port"][0] == "8001" and rows["grace"] == ("0.25", "default")


def test_which_file_is_taken(tmp_path):
    def host(*args, **environment):
        return shown(tmp_path, *args, **environment)["host"][0]

    assert host() == "127.0.0.1"
    (tmp_path / "codemode.yaml").write_text(GUIDE + "settings:\n  host: 127.0.0.2\n")
    assert host(CODEMODE_API_KEY=KEY) == "127.0.0.2"
    (tmp_path / "codemode-sidecar.yaml").write_text("host: 127.0.0.3\n")
    assert host() == "127.0.0.3"
    (tmp_path / "other.yaml").write_text("host: 127.0.0.4\n")
    assert host(CODEMODE_SIDECAR_CONFIG="other.yaml") == "127.0.0.4"
    (tmp_path / "flag.yaml").write_text("host: 127.0.0.5\n")
    assert host("-c", "flag.yaml", CODEMODE_SIDECAR_CONFIG="other.yaml") == "127.0.0.5"
    assert host("--config=flag.yaml") == "127.0.0.5"
    (tmp_path / "client.yaml").write_text(f"executor_url: http://localhost:8001\nexecutor_api_key: {KEY}\n")
    done = codemode("serve", "-c", "client.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "is a file for clients" in done.stderr and KEY not in done.stderr + done.stdout


def test_exec_needs_no_file(tmp_path):
    """A configuration file that is wrong is the server's problem."""
    (tmp_path / "codemode.yaml").write_text("wrong: 1\n")
    done = codemode("exec", "-c", "6 * 7", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "42\n"), done


@pytest.mark.parametrize(
    "variable, setting, value",
    [
        ("CODEMODE_SIDECAR_HOST", "host", "127.0.0.7"), ("CODEMODE_SIDECAR_PORT", "port", "8007"), ("EXECUTOR_PORT", "port", "8009"),
        ("CODEMODE_LOG_LEVEL", "log_level", "DEBUG"), ("CODEMODE_CODE_TIMEOUT", "execution_timeout", "9"),
        ("CODEMODE_MAX_CODE_LENGTH", "max_code_length", "5000"),
    ],
)  # fmt: skip
def test_other_names_of_variables(tmp_path, variable, setting, value):
    assert shown(tmp_path, **{variable: value})[setting] == (value, f"variable {variable}")


def test_two_names_that_disagree(tmp_path):
    done = codemode("config", "show", cwd=tmp_path, LOG_LEVEL="ERROR", CODEMODE_LOG_LEVEL="DEBUG")
    assert "log_level: ERROR  # variable LOG_LEVEL" in done.stdout
    assert "CODEMODE_LOG_LEVEL is another value than LOG_LEVEL, which wins" in done.stdout
    done = codemode("config", "show", cwd=tmp_path, LOG_LEVEL="ERROR", CODEMODE_LOG_LEVEL="ERROR")
    assert "warnings" not in done.stdout


@pytest.mark.parametrize("variable, bad, harmless", [("CODEMODE_ALLOW_DIRECT_EXECUTION", "true", "False"), ("CODEMODE_ALLOWED_COMMANDS", "ls,cat", ""), ("EXECUTOR_NETWORK_MODE", "all", "none")])
def test_variables_that_would_loosen_something(tmp_path, variable, bad, harmless):
    done = codemode("serve", cwd=tmp_path, **{variable: bad})
    assert done.returncode == 2 and done.stderr.startswith(f'codemode: {variable}: "{bad}" is not supported'), done
    assert codemode("config", "show", cwd=tmp_path, **{variable: harmless}).returncode == 0


def test_secrets_are_not_shown(tmp_path):
    (tmp_path / "codemode.yaml").write_text(GUIDE)
    done = codemode("config", "show", cwd=tmp_path, CODEMODE_API_KEY=KEY)
    assert done.returncode == 0 and KEY not in done.stdout + done.stderr
    assert 'api_key: "***"' in done.stdout


def test_the_reference_page_is_complete(tmp_path):
    page = (ROOT / "docs" / "configuration.md").read_text()
    for name in shown(tmp_path):
        assert f"`{name}`" in page


# --- a server with a file


@pytest.fixture
def configured(tmp_path):
    path = tmp_path / "codemode-sidecar.yaml"
    path.write_text("host: 127.0.0.1\nlimits:\n  code_timeout: 9\nsettings:\n  max_sessions: 2\n  session_ttl: 100\n")
    with running_sidecar(CODEMODE_SIDECAR_CONFIG=str(path)) as server:
        yield server, path


def hang_up(server, event):
    """Sends SIGHUP and returns the line that answers it."""
    before = len([line for line in server.log_lines() if line["event"] == event])
    server.process.send_signal(signal.SIGHUP)
    return eventually(lambda: [line for line in server.log_lines() if line["event"] == event][before:], f"{event} is logged")[0]


def test_a_hang_up_reads_the_file_again(configured):
    server, path = configured
    first, second = server.create(), server.create()
    assert server.request("POST", "/session").status_code == 429
    assert first.info()["limits"]["timeout"] == 9
    text = path.read_text().replace("max_sessions: 2", "max_sessions: 3\n  worker_uid: 4711").replace("code_timeout: 9", "code_timeout: 8")
    path.write_text(text)
    line = hang_up(server, "settings_reloaded")
    assert set(line["changed"].split(",")) == {"max_sessions", "execution_timeout"} and line["needs_restart"] == "worker_uid"
    assert line["file"] == str(path)
    third = server.create()
    assert third.info()["limits"]["timeout"] == 8 and first.info()["limits"]["timeout"] == 9
    assert second.value("6 * 7") == "42"
    line = hang_up(server, "settings_reloaded")
    assert line["changed"] == "" and line["needs_restart"] == "worker_uid"


def test_a_bad_file_changes_nothing(configured):
    server, path = configured
    path.write_text(path.read_text().replace("max_sessions: 2", "max_sessions: 50\n  max_sesions: 3"))
    line = hang_up(server, "reload_failed")
    assert f"{path}:6:3: settings.max_sesions: unknown setting; did you mean max_sessions?" in line["why"]
    server.create(), server.create()
    assert server.request("POST", "/session").status_code == 429
    path.unlink()
    assert "No such file" in hang_up(server, "reload_failed")["why"]
    assert server.request("GET", "/ready").status_code == 200


def test_a_key_of_the_file_and_its_successor(tmp_path):
    path, after = tmp_path / "codemode-sidecar.yaml", KEY + "-and-more"
    path.write_text(f"host: 127.0.0.1\napi_key: {KEY}\n")

    def status(key):
        return server.request("GET", "/sessions", headers={"Authorization": f"Bearer {key}"} if key else {}).status_code

    with running_sidecar(CODEMODE_SIDECAR_CONFIG=str(path)) as server:
        assert [status(key) for key in (KEY, after, None)] == [200, 401, 401]
        path.write_text(f"host: 127.0.0.1\napi_key: {after}\n")
        assert hang_up(server, "settings_reloaded")["changed"] == "api_key"
        assert [status(key) for key in (KEY, after, None)] == [401, 200, 401]
        path.write_text("host: 127.0.0.1\n")
        hang_up(server, "settings_reloaded")
        assert [status(key) for key in (after, None)] == [200, 401]  # no reload opens a server to everybody
        assert KEY not in server.log_text()


def test_beyond_loopback_a_key_is_needed(tmp_path):
    """The file's own default of `host` is every address."""
    (tmp_path / "codemode-sidecar.yaml").write_text("")
    done = codemode("serve", "--port", "0", cwd=tmp_path)
    assert done.returncode == 2 and "CODEMODE_API_KEY" in done.stderr, done


def test_config_of_the_file_reaches_the_code(tmp_path):
    path = tmp_path / "codemode.yaml"
    path.write_text(GUIDE + "config:\n  region: eu\n  retries: 3\n  flags: [true, null, 1.5]\n  quoted: '3'\nsettings:\n  host: 127.0.0.1\n")
    with running_sidecar(CODEMODE_SIDECAR_CONFIG=str(path), CODEMODE_API_KEY=KEY) as server:

        def result(code, **body):
            answer = server.request("POST", "/execute", json={"code": code, **body}, headers={"Authorization": f"Bearer {KEY}"})
            assert answer.status_code == 200 and answer.json()["success"], answer.text
            return answer.json()["result"]

        assert result("config") == "{'region': 'eu', 'retries': 3, 'flags': [True, None, 1.5], 'quoted': '3'}"
        assert result("config", config={"mine": 1}) == "{'mine': 1}"
        path.write_text(path.read_text().replace("eu", "us"))
        assert hang_up(server, "settings_reloaded")["changed"] == "config"
        assert result("config['region']") == "'us'"
