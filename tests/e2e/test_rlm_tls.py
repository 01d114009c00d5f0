# SPDX-License-Identifier: Apache-2.0
"""The service over TLS to its model and to its sidecar: whose certificate is good, and who hears nothing otherwise."""

import contextlib
import socket
import ssl
import subprocess
import threading

import pytest

from model_server import ModelServer, answer, repl
from rlm_support import Service, root
from support import CODEMODE, PATIENCE, eventually, listening_port, running_sidecar

KEY = "key-of-the-sidecar-19c4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two authorities, each with a server's certificate for this machine."""
    made = tmp_path_factory.mktemp("certificates")
    for name in ("ours", "theirs"):
        subprocess.run([CODEMODE, "tls", "generate-certs", "-o", made / name, "--ecdsa"], check=True, capture_output=True, timeout=60 * PATIENCE)
    return made


def pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for sock in (source, sink):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tls_before(port, certificates, host="localhost"):
    """Ends TLS and hands what is inside to a port: yields its own port and the list of handshakes that went well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    good = []

    def serve(sock):
        with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as outer, socket.create_connection(("127.0.0.1", port)) as inner:
            good.append(outer.version())
            back = threading.Thread(target=pump, args=(inner, outer), daemon=True)
            back.start()
            pump(outer, inner)
            back.join()

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server((socket.gethostbyname(host), 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], good
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def sidecar(folder):
    live = folder / "ours"
    with running_sidecar(verify=str(live / "ca.crt"), CODEMODE_TLS_ENABLED="true", CODEMODE_TLS_CERT_FILE=str(live / "server.crt"),
                         CODEMODE_TLS_KEY_FILE=str(live / "server.key"), CODEMODE_API_KEY=KEY) as server:  # fmt: skip
        yield server


@contextlib.contextmanager
def service(folder, sidecar, models, host, port, ca, kind=Service):
    settings = {"LLM_BASE_URL": f"https://{host}:{port}/v1", "CODEMODE_API_KEY": KEY, "LLM_ATTEMPTS": "1", "LLM_CA_FILE": str(folder / ca / "ca.crt")}
    made = kind(models, sidecar, folder, **settings)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def models():
    with ModelServer(root(repl(answer("str(6 * 7)")))) as server:
        yield server


def test_both_ways_are_encrypted_and_checked(folder, sidecar, models):
    with tls_before(models.port, folder / "ours") as (port, good), service(folder, sidecar, models, "localhost", port, "ours") as rlm:
        assert rlm.run().answer == "42"
        assert good and set(good) <= {"TLSv1.2", "TLSv1.3"}
        assert KEY not in rlm.log_text()


@pytest.mark.parametrize("host, certificates", [("localhost", "theirs"), ("127.0.0.2", "ours")])
def test_a_model_service_with_another_certificate_hears_nothing(folder, sidecar, models, host, certificates):
    with tls_before(models.port, folder / certificates, host) as (port, good), service(folder, sidecar, models, host, port, "ours") as rlm:
        outcome = rlm.run()
        assert (outcome.answer, outcome.code) == (None, "model_failed") and "certificate" in outcome.error
        assert not models.requests


class Listening(Service):
    """One that may never be ready."""

    def wait_ready(self, deadline=30.0, status=503):
        self.port = eventually(lambda: listening_port(self.process.pid), "the service listens", deadline)


def test_a_sidecar_with_another_certificate_is_not_used(folder, sidecar, models):
    with service(folder, sidecar, models, "localhost", models.port, "theirs", Listening) as rlm:
        answer = rlm.request("POST", "/infer", json={"query": "What is six times seven?"})
        assert answer.status_code == 500 and answer.json()["code"] == "sidecar_unavailable" and "certificate" in answer.json()["error"]
        assert rlm.request("GET", "/ready").status_code == 503
        assert not models.requests
