# SPDX-License-Identifier: Apache-2.0
"""Configuration: files, dicts, the environment, and that library and server agree on every key."""

import dataclasses
import pathlib
import re
import typing

import pytest

from codemode import Codemode, ComponentRegistry, ConfigError
from codemode.config import ClientConfig, CodemodeConfig, client_from_dict, load_client, load_unified

ROOT = pathlib.Path(__file__).resolve().parents[3]

GUIDE = """
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

FULL = """
executor:
  url: http://localhost:8001
  api_key: ${CODEMODE_API_KEY}
  timeout: 35
  limits:
    code_timeout: 30          # Max execution time (seconds)
    max_code_length: 10000    # Max code length (characters)
    memory_limit: "512Mi"     # Container memory limit
  filesystem:
    workspace: {mount: /workspace, readonly: true}
    sandbox: {mount: /sandbox, readonly: false}
    outputs: {mount: /outputs, readonly: false}
  network: {mode: none, allowed_domains: [], blocked_domains: []}
  execution: {allow_direct_execution: false, allowed_commands: []}
project: {name: full}
grpc:
  tls:
    enabled: true
    mode: custom
    cert_file: ./certs/server.crt
    key_file: ./certs/server.key
    ca_file: ./certs/ca.crt
    client_cert_file: ./certs/client.crt
    client_key_file: ./certs/client.key
"""


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    import os

    for name in [name for name in os.environ if name.startswith("CODEMODE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="codemode.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file


def test_the_guides_file(write, monkeypatch):
    monkeypatch.setenv("CODEMODE_API_KEY", "secret-key")
    codemode = Codemode.from_config(write(GUIDE))
    assert codemode.client.target == "localhost:8001" and codemode.client.timeout == 35 and codemode.code_timeout == 30
    assert codemode.config.executor.api_key == "secret-key" and "secret-key" not in repr(codemode.config)
    assert codemode.registry.service_defaults["api_key"] == "secret-key"


def test_the_guides_options(write, monkeypatch):
    monkeypatch.setenv("CODEMODE_API_KEY", "k")
    config = load_unified(write(FULL))
    assert config.executor.filesystem.sandbox.readonly is False and config.grpc.tls.ca_file == "./certs/ca.crt"
    assert config.client().tls.client_key_file == "./certs/client.key"
    codemode = Codemode.from_config(write(FULL))
    assert codemode.registry.service_defaults["tls_config"].key_file == "./certs/server.key"


def test_the_environment_wins_over_files(write, monkeypatch):
    monkeypatch.setenv("CODEMODE_API_KEY", "k")
    monkeypatch.setenv("CODEMODE_EXECUTOR_URL", "http://executor:8001")
    monkeypatch.setenv("CODEMODE_RETRY_MAX_ATTEMPTS", "7")
    monkeypatch.setenv("CODEMODE_CODE_TIMEOUT", "12")
    codemode = Codemode.from_config(write(GUIDE))
    assert codemode.client.target == "executor:8001" and codemode.client.max_attempts == 7 and codemode.code_timeout == 12
    path = write("executor_url: http://a:1\nexecutor_api_key: b\nretry: {max_attempts: 2}\n", "codemode-client.yaml")
    config = load_client(path)
    assert (config.executor_url, config.executor_api_key, config.retry.max_attempts) == ("http://executor:8001", "k", 7)
    assert Codemode.from_client_config(config_path=path).client.target == "executor:8001"
    monkeypatch.chdir(path.parent)
    assert Codemode.from_client_config().client.target == "executor:8001"
    assert Codemode.from_dict({"executor_url": "http://a:1", "executor_api_key": "b"}).client.target == "a:1"


def test_the_environment_alone(monkeypatch):
    with pytest.raises(ConfigError, match="CODEMODE_API_KEY"):
        Codemode.from_env()
    monkeypatch.setenv("CODEMODE_API_KEY", "one")
    assert Codemode.from_env().client.target == "localhost:8001"
    monkeypatch.setenv("CODEMODE_EXECUTOR_API_KEY", "two")
    monkeypatch.setenv("CODEMODE_RETRY_ENABLED", "no")
    monkeypatch.setenv("CODEMODE_EXECUTOR_TIMEOUT", "600")
    codemode = Codemode.from_env(ComponentRegistry())
    assert codemode.config.executor_api_key == "two" and codemode.client.max_attempts == 1 and codemode.client.timeout == 600
    monkeypatch.setenv("CODEMODE_EXECUTOR_TIMEOUT", "601")
    with pytest.raises(ConfigError, match="executor_timeout: must be from 1 to 600, not '601'"):
        Codemode.from_env()


def test_substitution(monkeypatch):
    monkeypatch.setenv("KEY", "k")
    monkeypatch.setenv("EMPTY", "")
    base = {"executor_api_key": "${KEY}", "executor_url": "http://${HOST_NAME:-localhost}:${PORT:-8001}"}
    config = client_from_dict({**base, "max_code_length": "${LENGTH:-500}", "observability": {"log_level": "${EMPTY}"}})
    assert config.executor_url == "http://localhost:8001" and config.max_code_length == 500
    assert config.observability.log_level == "INFO"  # an empty variable counts as unset
    assert client_from_dict({**base, "executor_api_key": "a$b${KEY}c${EMPTY:-d}"}).executor_api_key == "a$bkcd"
    with pytest.raises(ConfigError, match="executor_api_key: the environment variable NOT_THERE is not set"):
        client_from_dict({**base, "executor_api_key": "${NOT_THERE}"})


def test_everything_wrong_is_said_at_once_with_its_place(write):
    text = "project: {}\nexecutor:\n  url: localhost:x\n  api_keys: v3ry-s3cret\n  api_key: k\n  limits:\n    code_timeout: 301\n"
    with pytest.raises(ConfigError) as caught:
        load_unified(write(text))
    said = str(caught.value)
    assert "executor.api_keys (line 4, column 3): is no known key; did you mean 'api_key'?" in said
    assert "executor.limits.code_timeout (line 7, column 5): must be from 1 to 300, not 301" in said
    assert "project.name: is required" in said and "executor.url (line 3, column 3): must be like http" in said
    assert "v3ry-s3cret" not in said


@pytest.mark.parametrize(
    "text, said",
    [
        ("executor_url: [", "not valid YAML"),
        ("- a\n", "keys and values"),
        ("executor_url: a\nexecutor_url: b\n", r"executor_url \(line 2, column 1\): is there twice"),
        ("executor_url: http://a\nexecutor_api_key: ''\n", r"executor_api_key \(line 2, column 1\): is empty"),
        ("executor_url: http://a\nexecutor_api_key: k\nretry: 3\n", "retry.*must be a mapping, not 3"),
        ("executor_url: http://a\nexecutor_api_key: k\nretry: {enabled: maybe}\n", "must be true or false"),
        ("executor_url: http://a\nexecutor_api_key: k\nretry: {max_attempts: 1.5}\n", "must be a whole number"),
        ("executor_url: http://a\nexecutor_api_key: k\ntls: {client_key_file: x}\n", "tls: client_cert_file and client_key"),
        ("executor_url: http://a\nexecutor_api_key: k\nobservability: {correlation_id_prefix: ninechars}\n", "1 to 8"),
        ("a: &a [*a]\n", "too many"),
        ("a: &a [1,1]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 30)}]\n" for a, b in zip("abcd", "bcde")), "too many"),
        ("!!python/object/apply:os.system [id]\n", "not valid YAML"),
    ],
)
def test_files_that_cannot_be_used(write, text, said):
    with pytest.raises(ConfigError, match=said):
        load_client(write(text))


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="codemode init"):
        Codemode.from_config(tmp_path / "codemode.yaml")


def test_an_unset_variable_that_the_environment_replaces(write, monkeypatch):
    monkeypatch.setenv("CODEMODE_EXECUTOR_API_KEY", "k")  # the file asks for CODEMODE_API_KEY
    assert Codemode.from_config(write(GUIDE)).config.executor.api_key == "k"


def test_config_for_code_and_discovery(write, monkeypatch):
    monkeypatch.setenv("CODEMODE_API_KEY", "k")
    path = write(GUIDE.replace("auto_discover: true", "discovery: {tools_module: shop_tools, exclude_patterns: ['old_*']}")
                 + "config: {region: eu}\n")
    (path.parent / "shop_tools.py").write_text(
        "class Tool:\n    def __init__(self, name=None):\n        self.name = name\n    def run(self): return 1\n"
        "orders = Tool()\nsecond = Tool('named')\nold_one = Tool()\n_private = Tool()\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(str(path.parent))
    registry = Codemode.from_config(path).registry
    assert sorted(registry.get_component_names()["tools"]) == ["named", "orders"] and registry.config == {"region": "eu"}
    with pytest.raises(ConfigError, match="tools_module: nowhere cannot be imported"):
        Codemode.from_config(write(path.read_text().replace("shop_tools", "nowhere")))


# --- one set of keys


ROW = re.compile(
    r'^CM_FILE_KEY\((?P<kind>\w+), "(?P<path>[^"]+)", (?P<type>\w+), (?P<low>[\d.]+), (?P<high>[\d.]+), '
    r'"(?P<choices>[^"]*)", "(?P<default>[^"]*)", (?P<use>\w+)',
    re.MULTILINE,
)


def server_keys(kind):
    text = (ROOT / "tables/config_files.def").read_text()
    rows = {row["path"]: row.groupdict() for row in ROW.finditer(text) if row["kind"] == kind}
    assert len(rows) > 10
    return rows


def library_keys(cls, path=""):
    for field in dataclasses.fields(cls):
        hint = typing.get_type_hints(cls)[field.name]
        inner = f"{path}.{field.name}" if path else field.name
        if dataclasses.is_dataclass(hint):
            yield from library_keys(hint, inner)
        else:
            yield inner, field


@pytest.mark.parametrize("kind, cls", [("CLIENT", ClientConfig), ("UNIFIED", CodemodeConfig)])
def test_the_server_knows_the_same_keys(kind, cls):
    rows, fields = server_keys(kind), dict(library_keys(cls))
    assert set(rows) == set(fields)
    for path, row in rows.items():
        rules = fields[path].metadata
        if row["type"] in ("UINT", "SECONDS"):
            assert (rules["low"], rules["high"]) == (float(row["low"]), float(row["high"])), path
            assert float(row["default"]) == fields[path].default, path
        if row["choices"]:
            assert row["choices"].split("|") == list(rules["choices"]) and row["default"] == fields[path].default, path
