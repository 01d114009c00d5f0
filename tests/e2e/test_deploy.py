# SPDX-License-Identifier: Apache-2.0
"""The files that deploy RLM: what they name is there, and is what the programs and their tables call it."""

import contextlib
import re
import subprocess

import pytest
import requests
import yaml

import model_server
from support import CODEMODE, ROOT, eventually, listening_port

K8S = ROOT / "deploy" / "k8s" / "rlm-sidecar-deployment.yaml"
DOCKERFILES = {"rlm-inference": ROOT / "deploy" / "docker" / "Dockerfile.rlm-sidecar", "wasm-manager": ROOT / "deploy" / "docker" / "Dockerfile.wasm-manager"}
PROGRAMS = {"rlm-inference": "rlm_config.def", "wasm-manager": "config.def"}
LABELS = {"app": "rlm", "component": "sidecar"}


def settings(table):
    """{variable: (type, least, most)} and the flags of a program's table."""
    rows = re.findall(r'^CM_CONFIG\((\w+), (\w+), "(\w+)", "([\w-]+)", ([^,]+), ([^,]+), ', (ROOT / "tables" / table).read_text(), re.M)
    assert len(rows) > 30
    return {row[2]: (row[1], float(row[4]), float(row[5])) for row in rows}, {row[3] for row in rows}


def routes():
    found = re.findall(r'CM_ROUTE\("GET", "([^"]+)"', (ROOT / "tables" / "routes.def").read_text())
    return set(found)


def instructions(path):
    """[(word, rest)] of a Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def objects():
    found = {(entry["kind"], entry["metadata"]["name"]): entry for entry in yaml.safe_load_all(K8S.read_text())}
    assert all(entry["metadata"]["labels"] == LABELS for entry in found.values())
    return found


@pytest.fixture(scope="module")
def pod(objects):
    deployment = objects["Deployment", "rlm-sidecar"]["spec"]
    assert deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"] == LABELS
    return deployment["template"]["spec"]


@pytest.fixture(scope="module")
def containers(pod):
    found = {container["name"]: container for container in pod["containers"]}
    assert set(found) == {"rlm-inference", "wasm-manager"}
    return found


def variables(container, objects):
    """What a container's variables are, those of the ConfigMap with them."""
    found = {entry["name"]: entry["value"] for entry in container["env"]}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            found.update(objects["ConfigMap", source["configMapRef"]["name"]]["data"])
        else:
            assert source["secretRef"]["optional"] is True
    return found


def test_objects(objects):
    assert set(objects) == {("ConfigMap", "rlm-config"), ("PersistentVolumeClaim", "rlm-models-pvc"), ("Deployment", "rlm-sidecar"),
                            ("Service", "rlm-sidecar-service"), ("NetworkPolicy", "rlm-sidecar-network-policy")}  # fmt: skip


def test_images_and_resources(containers):
    assert {name: container["image"] for name, container in containers.items()} == {name: f"{name}:latest" for name in containers}
    assert containers["rlm-inference"]["resources"] == {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}}
    assert containers["wasm-manager"]["resources"] == {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "2Gi"}}


@pytest.mark.parametrize("name", PROGRAMS)
def test_variables_are_settings(name, containers, objects):
    known, _ = settings(PROGRAMS[name])
    for variable, value in variables(containers[name], objects).items():
        assert isinstance(value, str), f"{variable}: Kubernetes takes texts only"
        kind, least, most = known[variable]
        if kind in ("UINT", "SECONDS"):
            assert least <= float(value) <= most, variable
        elif kind == "BOOL":
            assert value in ("true", "false"), variable
        elif kind == "LEVEL":
            assert value in ("DEBUG", "INFO", "WARNING", "ERROR"), variable
        else:
            assert kind in ("TEXT", "PATH") and len(value) <= most, f"{variable} is {kind}: secrets do not belong here"


def test_the_guides_variables_are_named(containers, objects):
    rlm, manager = (variables(containers[name], objects) for name in ("rlm-inference", "wasm-manager"))
    assert rlm["WASM_MANAGER_SERVICE_URL"] == "http://localhost:8080" and rlm["MODEL_PATH"] == "/app/models" and "LOG_LEVEL" in rlm
    assert {"MAX_SESSIONS", "SESSION_TTL", "LOG_LEVEL"} <= set(manager)


@pytest.mark.parametrize("name", PROGRAMS)
def test_arguments_and_ports(name, containers):
    _, flags = settings(PROGRAMS[name])
    verb, *args = containers[name]["args"]
    given = dict(zip(args[::2], args[1::2]))
    assert verb == "serve" and set(given) <= flags
    if name == "wasm-manager":
        assert given == {"--host": "127.0.0.1", "--port": "8080"} and "ports" not in containers[name]
    else:
        assert given == {"--host": "0.0.0.0", "--port": "8000"}
        assert containers[name]["ports"] == [{"name": "http", "containerPort": 8000, "protocol": "TCP"}]


def test_probes(containers):
    for probe, path in (("readinessProbe", "/ready"), ("livenessProbe", "/health")):
        assert path in routes()
        assert containers["rlm-inference"][probe]["httpGet"] == {"path": path, "port": "http"}
        assert containers["wasm-manager"][probe]["exec"]["command"] == ["curl", "-fsS", f"http://127.0.0.1:8080{path}"]


def test_pod_security_is_restricted(pod, containers):
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in containers.values():
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert all(set(volume) <= {"name", "configMap", "emptyDir", "secret", "persistentVolumeClaim"} for volume in pod["volumes"])


def test_service_volume_and_policy(objects, pod, containers):
    service = objects["Service", "rlm-sidecar-service"]["spec"]
    assert service["type"] == "ClusterIP" and service["selector"] == LABELS
    assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(8000, "http")]
    assert objects["PersistentVolumeClaim", "rlm-models-pvc"]["spec"]["resources"]["requests"]["storage"] == "10Gi"
    claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in containers["rlm-inference"]["volumeMounts"]}
    assert claims == {"models": "rlm-models-pvc"} and mounts == {"models": "/app/models"}
    policy = objects["NetworkPolicy", "rlm-sidecar-network-policy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == LABELS and policy["policyTypes"] == ["Ingress", "Egress"]
    [door] = policy["ingress"]
    assert door == {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"protocol": "TCP", "port": 8000}]}
    out = {(port["protocol"], port["port"]) for rule in policy["egress"] for port in rule["ports"]}
    assert out == {("TCP", 443), ("UDP", 53), ("TCP", 53)}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfile(name, containers):
    path = DOCKERFILES[name]
    lines = instructions(path)
    assert {word for word, _ in lines} <= {"ARG", "FROM", "RUN", "COPY", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    said = dict(lines)
    port = {"rlm-inference": "8000", "wasm-manager": "8080"}[name]
    assert said["EXPOSE"] == port and f"http://127.0.0.1:{port}/health" in said["HEALTHCHECK"]
    assert said["USER"] == "65534:65534" and re.search(r"\bcurl\b", next(rest for word, rest in lines if word == "RUN"))
    program = {"rlm-inference": "rlm", "wasm-manager": "codemode"}[name]
    assert said["ENTRYPOINT"] == f'["{program}"]' and said["CMD"] == f'["serve", "--host", "0.0.0.0", "--port", "{port}"]'
    known, _ = settings(PROGRAMS[name])
    assert all(pair.split("=")[0] in known for pair in said.get("ENV", "").split())
    ignore = path.with_name(path.name + ".dockerignore").read_text().splitlines()
    copied = {source for word, rest in lines if word == "COPY" for source in rest.split()[:-1]}
    assert {line[1:] for line in ignore if line.startswith("!")} == copied and "*" in ignore
    assert f"build/{program}" in copied


@pytest.mark.parametrize("name", DOCKERFILES)
def test_libraries_are_in_the_image(name):
    """Packages of shared libraries are named after them: libuv.so.1 is in libuv1."""
    program = CODEMODE.with_name({"rlm-inference": "rlm", "wasm-manager": "codemode"}[name])
    needed = re.findall(r"NEEDED +(\S+)", subprocess.run(["objdump", "-p", program], capture_output=True, text=True, check=True).stdout)
    installed = " ".join(rest for word, rest in instructions(DOCKERFILES[name]) if word == "RUN").split()
    for library in set(needed) - {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}:
        if re.match("lib(asan|ubsan)", library):
            continue  # a sanitizer's build goes into no image
        stem, version = library.split(".so.")
        package = f"{stem}{'-' if stem[-1].isdigit() else ''}{version}"
        assert {"libcurl-gnutls4": "libcurl3-gnutls"}.get(package, package) in installed, library


@contextlib.contextmanager
def started(program, container, objects, **others):
    """A container's program with its arguments and variables, on a free port: yields its process and its URL."""
    args = [arg if arg not in ("8000", "8080") else "0" for arg in container["args"]]
    environment = {**variables(container, objects), **others}
    with subprocess.Popen([CODEMODE.with_name(program), *args], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            port = eventually(lambda: listening_port(process.pid), f"{program} listens")
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def test_the_pods_programs_work_together(containers, objects):
    """With the arguments and variables of the manifest, but for the ports and the model."""

    def status(url, probe, name):
        container = containers[name][probe]
        path = container["httpGet"]["path"] if "httpGet" in container else container["exec"]["command"][-1].removeprefix("http://127.0.0.1:8080")
        return requests.get(url + path, timeout=10).status_code

    with (
        model_server.ModelServer(model_server.repl(model_server.answer("str(6 * 7)")), models=("gpt-5",)) as models,
        started("codemode", containers["wasm-manager"], objects) as (manager, manager_url),
        started("rlm", containers["rlm-inference"], objects, WASM_MANAGER_SERVICE_URL=manager_url, LLM_BASE_URL=models.url,
                LLM_API_KEY=model_server.KEY) as (_, rlm_url),
    ):  # fmt: skip
        for name, url in (("wasm-manager", manager_url), ("rlm-inference", rlm_url)):
            eventually(lambda: status(url, "readinessProbe", name) == 200, f"{name} is ready")
            assert status(url, "livenessProbe", name) == 200
        answer = requests.post(rlm_url + "/infer", json={"query": "What is six times seven?"}, timeout=60).json()
        assert answer["success"] is True and answer["answer"] == "42" and answer["model"] == "gpt-5"
        metrics = requests.get(rlm_url + "/metrics", timeout=10).text + requests.get(manager_url + "/metrics", timeout=10).text
        assert {"rlm_inference_requests_total", "rlm_inference_duration_seconds", "rlm_code_generated_total", "wasm_sessions_active",
                "wasm_execution_duration_seconds", "wasm_execution_errors_total"} <= set(re.findall(r"# TYPE (\w+)", metrics))  # fmt: skip
        manager.kill()
        manager.wait()
        eventually(lambda: status(rlm_url, "readinessProbe", "rlm-inference") == 503, "the service is not ready without its manager")
        assert status(rlm_url, "livenessProbe", "rlm-inference") == 200
