# SPDX-License-Identifier: Apache-2.0
"""TLS on every port: who gets in and who does not, one port for both protocols, and new certificates on the way."""

import contextlib
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import grpc
import pytest
import requests

from grpc_support import Rpc
from streams import events_of
from support import CODEMODE, PATIENCE, Background, Sidecar, eventually, running_sidecar

KEY = "key-behind-tls-77a1"
_FOLDER = tempfile.TemporaryDirectory(prefix="codemode-tls-")
FOLDER = pathlib.Path(_FOLDER.name)


def generate(name, *flags, check=True):
    """A folder with an authority, a server and a client of its own."""
    command = [CODEMODE, "tls", "generate-certs", "-o", FOLDER / name, *(flags or ("--ecdsa",))]
    done = subprocess.run(command, capture_output=True, text=True, check=check, timeout=60 * PATIENCE)
    return FOLDER / name if check else done


def expired(name):
    """A client of OURS whose time is over."""
    key, template = FOLDER / f"{name}.key", FOLDER / f"{name}.template"
    template.write_text(
        'cn = "late"\nactivation_date = "2020-01-01 00:00:00"\nexpiration_date = "2021-01-01 00:00:00"\n'
        "tls_www_client\nsigning_key\n"
    )
    subprocess.run(["certtool", "--generate-privkey", "--ecdsa", "--outfile", key], check=True, capture_output=True)
    subprocess.run(
        ["certtool", "--generate-certificate", "--load-privkey", key, "--load-ca-certificate", OURS / "ca.crt",
         "--load-ca-privkey", OURS / "ca.key", "--template", template, "--outfile", FOLDER / f"{name}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return FOLDER / f"{name}.crt", key


OURS, THEIRS = generate("ours"), generate("theirs")
LIVE = FOLDER / "live"  # what the servers read: a link, as where secrets are mounted
LIVE.symlink_to(OURS)
CLIENTS = {
    "none": None,
    "of another authority": (THEIRS / "client.crt", THEIRS / "client.key"),
    "a server's": (OURS / "server.crt", OURS / "server.key"),
    "expired": expired("late"),
}
GOOD = (OURS / "client.crt", OURS / "client.key")

TLS = {
    "CODEMODE_TLS_ENABLED": "true",
    "CODEMODE_TLS_CERT_FILE": str(LIVE / "server.crt"),
    "CODEMODE_TLS_KEY_FILE": str(LIVE / "server.key"),
    "CODEMODE_API_KEY": KEY,
    "SECRETS_INTERVAL": "0.1",
    "HEAD_TIMEOUT": "2",
}
MUTUAL = {
    **TLS,
    "CODEMODE_TLS_MODE": "custom",
    "CODEMODE_TLS_CA_FILE": str(OURS / "ca.crt"),
    "CODEMODE_TLS_REQUIRE_CLIENT_AUTH": "true",
}


@pytest.fixture(scope="module")
def server():
    made = Sidecar(TLS, verify=str(OURS / "ca.crt"))
    try:
        yield made
        made.check_clean()
    finally:
        status = made.stop()
    assert status == 0


@pytest.fixture(scope="module")
def mutual():
    made = Sidecar(MUTUAL, verify=str(OURS / "ca.crt"), cert=tuple(map(str, GOOD)))
    try:
        yield made
        made.check_clean()
    finally:
        status = made.stop()
    assert status == 0


def context(cert=None, authority=OURS, alpn=None, **settings):
    made = ssl.create_default_context(cafile=authority / "ca.crt")
    if cert:
        made.load_cert_chain(*cert)
    if alpn:
        made.set_alpn_protocols(alpn)
    for name, value in settings.items():
        setattr(made, name, value)
    return made


@contextlib.contextmanager
def dialled(server, tls=None, name="localhost"):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30 * PATIENCE) as sock:
        with (tls or context()).wrap_socket(sock, server_hostname=name) as wrapped:
            yield wrapped


def request(path="/sessions", key=KEY):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n".encode()


def all_of(sock):
    received = b""
    with contextlib.suppress(ssl.SSLEOFError, ConnectionError):
        while piece := sock.recv(65536):
            received += piece
    return received


def credentials(cert=None, authority=OURS):
    files = (cert[1].read_bytes(), cert[0].read_bytes()) if cert else (None, None)
    return grpc.ssl_channel_credentials((authority / "ca.crt").read_bytes(), *files)


# --- what works


def test_sessions_over_tls(server):
    session = server.create()
    assert session.value("40 + 2") == "42"
    assert requests.get(f"{server.url}/sessions", verify=server.verify, timeout=20).status_code == 401
    session.delete()


def test_much_both_ways(server):
    """More than any buffer on the way, up and down."""
    session = server.create()
    code = "text = '" + "x" * 900_000 + "'\nprint(text[:700_000])\nlen(text)"
    reply = session.ok(code)
    assert reply["result"] == "900000" and reply["stdout"] == "x" * 700_000 + "\n"
    session.delete()


def test_streams(server):
    """Events come as they happen, calls are answered, and whoever leaves is noticed."""
    session = server.create()
    body = {"code": "print('begun', flush=True)\nprint(tools['ask'].run())\ntools['ask'].run()", "caller_tools": ["ask"]}
    answer = server.request("POST", session.path + "/execute", json=body, headers={"Accept": "text/event-stream"}, stream=True)
    events = events_of(line + b"\n" for line in answer.iter_lines(chunk_size=1))
    seen = [next(events) for _ in range(3)]
    assert [name for name, _ in seen] == ["start", "output", "call"] and seen[1][1]["text"] == "begun\n"
    path = f"{session.path}/executions/{seen[0][1]['execution_id']}/calls"
    other = Background(lambda: (server.request("POST", f"{path}/1", json={"result": "x" * 100_000}).status_code, server.hang_up())[0])
    text = ""
    for name, data in events:
        if name == "call":
            break
        text += data["text"]
    assert text == "x" * 100_000 + "\n" and other.result() == 200
    answer.close()
    eventually(lambda: session.info()["state"] == "idle", "its execution has ended")
    session.delete()


def test_a_large_value(server):
    session = server.create()
    data = bytes(range(256)) * 80_000
    answer = server.request("PUT", f"{session.path}/variables/it", data=data, headers={"Content-Type": "application/octet-stream"})
    assert answer.json()["length"] == len(data), answer.text
    assert session.value("it == bytes(range(256)) * 80_000") == "True"
    session.delete()


def test_a_slow_reader_gets_all(server):
    session = server.create()
    body = b'{"code": "print(chr(122) * 900000)"}'
    head = f"POST /session/{session.id}/execute HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    with dialled(server) as sock:
        sock.sendall(head.encode() + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: session.info()["executions"] == 1, "the code has run")
        assert all_of(sock).count(b"z") >= 900_000
    session.delete()


def test_a_client_that_leaves_is_noticed(server):
    session = server.create()
    body = b'{"code": "import time; time.sleep(60)", "timeout": 60}'
    head = f"POST /session/{session.id}/execute HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    with dialled(server) as sock:
        sock.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: session.info()["state"] == "running", "the code runs")
    eventually(lambda: session.info()["state"] == "idle", "the execution was interrupted")
    session.delete()


def test_a_client_that_only_stops_sending_is_answered(server):
    """Its request and its close_notify come together. In TLS 1.2 one sees from outside what is application data."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(maximum_version=ssl.TLSVersion.TLSv1_2).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30 * PATIENCE) as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        tls.write(request())
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()
        sock.sendall(outgoing.read())
        received = all_of(sock)
    data = 0
    while received:
        kind, length = received[0], int.from_bytes(received[3:5], "big")
        data += length if kind == 23 else 0
        received = received[5 + length :]
    assert data > 100


@pytest.mark.parametrize("version", ("TLSv1_2", "TLSv1_3"))
@pytest.mark.parametrize(
    ("offered", "chosen"),
    ((None, None), (["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["spdy/3"], None)),
)
def test_alpn(server, version, offered, chosen):
    version = getattr(ssl.TLSVersion, version)
    with dialled(server, context(alpn=offered, minimum_version=version, maximum_version=version)) as sock:
        assert sock.selected_alpn_protocol() == chosen
        if chosen == "h2":
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            assert sock.recv(9)[3] == 4  # SETTINGS
        else:
            sock.sendall(request())
            assert all_of(sock).startswith(b"HTTP/1.1 200 ")


def test_grpc_over_tls(server):
    with Rpc(server.port, key=KEY, credentials=credentials()) as rpc:
        assert rpc.probe("Ready").status
        assert rpc.execute("result = 6 * 7").result == "42"
    with Rpc(server.port, credentials=credentials()) as rpc, pytest.raises(grpc.RpcError) as error:
        rpc.execute("1")
    assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("name", ("localhost", "executor", "host.docker.internal", "127.0.0.1", "::1"))
def test_names_of_the_server(server, name):
    with dialled(server, name=name) as sock:
        assert dict(sum(sock.getpeercert()["subject"], ()))["commonName"] == "localhost"


def test_small_records(server):
    with dialled(server) as sock:
        for byte in request():
            sock.sendall(bytes([byte]))
        assert all_of(sock).startswith(b"HTTP/1.1 200 ")


# --- what does not


@pytest.mark.parametrize("version", ("-ssl3", "-tls1", "-tls1_1"))
def test_old_versions(server, version):
    """OpenSSL with the brakes off: its own refusal would prove nothing, the server's alert does."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", version, "-cipher", "ALL:@SECLEVEL=0", "-msg"],
        input=b"", capture_output=True, timeout=60 * PATIENCE, check=False,
    )  # fmt: skip
    text = done.stdout + done.stderr
    if version == "-ssl3" and (b"Unknown option" in text or b"unknown option" in text):
        return  # this OpenSSL cannot even ask for it
    assert done.returncode != 0 and (b"protocol_version" in text or b"protocol version" in text), text.decode()


@pytest.mark.parametrize("cipher", ("AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA384", "NULL-SHA256"))
def test_weak_ciphers(server, cipher):
    with pytest.raises(ssl.SSLError), dialled(server, context(maximum_version=ssl.TLSVersion.TLSv1_2)) as sock:
        sock.context.set_ciphers(f"{cipher}:@SECLEVEL=0")
        with dialled(server, sock.context):
            pass


PLAIN = {
    "http": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 400 "),
    "post": (b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n" + b'{"code": "1"}', b"HTTP/1.1 400 "),
    "http2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 400 "),
    "garbage": (b"\x00\x01\x02garbage\r\n\r\n", b""),
    "ssl2": (b"\x80\x2e\x01\x00\x02" + bytes(43), b""),
    "a broken hello": (b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03", b"\x15\x03"),  # an alert
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_not_tls(server, name):
    sent, begins = PLAIN[name]
    received = server.raw(sent, deadline=10)
    assert received.startswith(begins) and (begins or not received), received
    assert b" 200 " not in received and b"healthy" not in received


def test_a_handshake_without_end():
    """A first message that says it has 16 MB: it is not collected."""
    with running_sidecar(verify=str(OURS / "ca.crt"), **{**TLS, "HEAD_TIMEOUT": "600", "IDLE_TIMEOUT": "600"}) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30 * PATIENCE) as sock:
            sock.sendall(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16380))
            with pytest.raises(ConnectionError):
                for _ in range(1000):
                    sock.sendall(b"\x16\x03\x01\x40\x00" + bytes(16384))


def test_a_client_that_does_not_know_us(server):
    with pytest.raises(ssl.SSLCertVerificationError), dialled(server, context(authority=THEIRS)):
        pass
    with pytest.raises(ssl.SSLCertVerificationError), dialled(server, name="elsewhere"):
        pass
    assert server.request("GET", "/health").status_code == 200


def test_slow_handshakes_take_nothing_away():
    """They are let go after HEAD_TIMEOUT, and others are served meanwhile."""
    settings = {**TLS, "HEAD_TIMEOUT": "3"}
    with running_sidecar(verify=str(OURS / "ca.crt"), **settings) as server:
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        crowd = [socket.create_connection(("127.0.0.1", server.port), timeout=30 * PATIENCE) for _ in range(60)]
        for i, sock in enumerate(crowd):
            sock.sendall(hello[: 1 + i % len(hello)])
        assert server.request("GET", "/health").status_code == 200
        started = time.monotonic()
        for sock in crowd:
            with contextlib.suppress(ConnectionError):
                assert sock.recv(100)[:1] in (b"", b"\x15")
            sock.close()
        assert time.monotonic() - started < 25 * PATIENCE
        assert server.metrics()['codemode_tls_handshakes_total{outcome="failed"}'] > 0


def test_many_handshakes_at_once(server):
    """Everybody gets through, and so does who is connected already."""
    failed, done = [], threading.Event()

    def shake():
        try:
            for _ in range(5):
                with dialled(server) as sock:
                    sock.sendall(request("/health"))
                    assert all_of(sock).startswith(b"HTTP/1.1 200 ")
        except Exception as error:  # told below
            failed.append(error)

    threads = [threading.Thread(target=shake) for _ in range(20)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert server.request("GET", "/health").status_code == 200
        done.wait(0.01)
    assert not failed


# --- both sides show a certificate


def test_mutual(mutual):
    assert mutual.request("GET", "/sessions").status_code == 200
    with Rpc(mutual.port, key=KEY, credentials=credentials(GOOD)) as rpc:
        assert rpc.execute("result = 1").result == "1"


@pytest.mark.parametrize("version", ("TLSv1_2", "TLSv1_3"))
@pytest.mark.parametrize("name", CLIENTS)
def test_clients_without_the_right_certificate(mutual, name, version):
    version = getattr(ssl.TLSVersion, version)
    tls = context(CLIENTS[name], minimum_version=version, maximum_version=version)
    received = b""
    with contextlib.suppress(ssl.SSLError, ConnectionError), dialled(mutual, tls) as sock:
        sock.sendall(request())
        received = sock.recv(1000)  # with TLS 1.3 it is only now that the client learns
    assert received == b""


@pytest.mark.parametrize("name", CLIENTS)
def test_grpc_clients_without_the_right_certificate(mutual, name):
    with Rpc(mutual.port, key=KEY, credentials=credentials(CLIENTS[name])) as rpc, pytest.raises(grpc.RpcError) as error:
        rpc.execute("1", call_timeout=5)
    assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


# --- new certificates


def serial(server):
    with dialled(server, context(check_hostname=False, verify_mode=ssl.CERT_NONE)) as sock:
        return ssl.DER_cert_to_PEM_cert(sock.getpeercert(binary_form=True))


def pem(path):
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(path.read_text()))


def point_to(folder):
    fresh = LIVE.with_name("fresh")
    fresh.symlink_to(folder)
    os.replace(fresh, LIVE)


def test_new_certificates(server):
    """A link that is turned over; a connection that is open stays; half a pair changes nothing."""
    newer = generate("newer")
    with dialled(server) as kept:
        assert serial(server) == pem(OURS / "server.crt")
        try:
            point_to(newer)
            eventually(lambda: serial(server) == pem(newer / "server.crt"), "the new certificate is shown")
            failed = lambda: [line for line in server.log_lines() if line["event"] == "reload_failed"]  # noqa: E731
            before = len(failed())
            shutil.copy(THEIRS / "server.key", newer / "server.key")
            eventually(lambda: len(failed()) == before + 1, "the log says what is wrong")
            assert "tls.key_file" in failed()[-1]["why"] and "not the key" in failed()[-1]["why"]
            assert serial(server) == pem(newer / "server.crt")
            shutil.copy(THEIRS / "server.crt", newer / "server.crt")
            eventually(lambda: serial(server) == pem(THEIRS / "server.crt"), "the whole pair is shown")
            kept.sendall(request().replace(b"close", b"keep-alive"))
            assert kept.recv(100).startswith(b"HTTP/1.1 200 ")
        finally:
            point_to(OURS)
        eventually(lambda: serial(server) == pem(OURS / "server.crt"), "it is as it was")


# --- starting


@pytest.mark.parametrize(
    ("settings", "says"),
    (
        ({"CODEMODE_TLS_CERT_FILE": ""}, "tls.cert_file: a server needs a certificate"),
        ({"CODEMODE_TLS_REQUIRE_CLIENT_AUTH": "true"}, "tls.require_client_auth: needs mode custom and a ca_file"),
        ({"CODEMODE_TLS_REQUIRE_CLIENT_AUTH": "true", "CODEMODE_TLS_ENABLED": "false"}, "tls.require_client_auth: needs TLS"),
        ({"CODEMODE_TLS_CA_FILE": str(OURS / "ca.crt")}, "tls.ca_file: is of mode custom"),
        ({"CODEMODE_TLS_MODE": "both"}, "tls.mode: \"both\" is neither system nor custom"),
        ({"CODEMODE_TLS_KEY_FILE": str(THEIRS / "server.key")}, "is not the key of the certificate"),
        (
            {"CODEMODE_CALLBACK_TLS_ENABLED": "true", "CODEMODE_CALLBACK_TLS_CLIENT_CERT": str(GOOD[0])},
            "callback_tls.client_key: the certificate's key is missing",
        ),
    ),
)
def test_settings_that_do_not_fit(settings, says):
    environment = {"PATH": os.environ["PATH"], "PORT": "0", **TLS, **settings}
    names = ("CODEMODE_SANDBOX", "CODEMODE_IMAGE", "ASAN_OPTIONS", "UBSAN_OPTIONS")
    environment.update({name: os.environ[name] for name in names if name in os.environ})
    done = subprocess.run(
        [CODEMODE, "serve"], env=environment, capture_output=True, text=True, timeout=30 * PATIENCE, check=False
    )
    assert done.returncode == 2 and says in done.stdout + done.stderr


# --- codemode tls generate-certs


def test_generate_certs(tmp_path):
    """As the guide has it: RSA 4096, a year, keys for nobody else; and nothing is overwritten."""
    folder = tmp_path / "certs"
    done = subprocess.run(
        [CODEMODE, "tls", "generate-certs", "-o", folder], capture_output=True, text=True, timeout=120 * PATIENCE, check=True
    )
    names = [f"{name}.{suffix}" for name in ("ca", "server", "client") for suffix in ("crt", "key")]
    assert sorted(pathlib.Path(line).name for line in done.stdout.splitlines()) == sorted(names)
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    for name in names:
        assert (folder / name).stat().st_mode & 0o777 == (0o600 if name.endswith(".key") else 0o644)
    text = subprocess.run(
        ["openssl", "x509", "-in", folder / "server.crt", "-noout", "-text"], capture_output=True, text=True, check=True
    ).stdout
    assert "Public-Key: (4096 bit)" in text
    for name in ("DNS:localhost", "DNS:executor", "DNS:host.docker.internal", "IP Address:127.0.0.1", "IP Address:0:0:0:0:0:0:0:1"):
        assert name in text
    for name, purpose in (("server", "sslserver"), ("client", "sslclient")):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", folder / "ca.crt", folder / f"{name}.crt"]
        subprocess.run(command, capture_output=True, check=True)
    year = ["openssl", "x509", "-in", folder / "server.crt", "-noout", "-checkend"]
    assert subprocess.run([*year, str(364 * 86400)], capture_output=True, check=False).returncode == 0
    assert subprocess.run([*year, str(366 * 86400)], capture_output=True, check=False).returncode == 1
    before = (folder / "ca.crt").read_bytes()
    again = subprocess.run([CODEMODE, "tls", "generate-certs", "-o", folder], capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "--force" in again.stderr and (folder / "ca.crt").read_bytes() == before
    subprocess.run([CODEMODE, "tls", "generate-certs", "-o", folder, "-f", "--ecdsa"], capture_output=True, check=True)
    assert (folder / "ca.crt").read_bytes() != before
