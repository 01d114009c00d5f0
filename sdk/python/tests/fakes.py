# SPDX-License-Identifier: Apache-2.0
"""An executor made of grpcio, for what the real one cannot be made to do at will: fail a certain way, lose answers."""

import concurrent.futures
import contextlib
import threading

import grpc

from codemode.protos import codemode_pb2, codemode_pb2_grpc


class FakeExecutor(codemode_pb2_grpc.ExecutorServiceServicer):
    """Answers with what `replies` holds: a response, a (StatusCode, text) to fail with, or a callable(request, context)."""

    def __init__(self, port=0, credentials=None):
        self.replies, self.seen = [], []
        self.lock = threading.Lock()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        codemode_pb2_grpc.add_ExecutorServiceServicer_to_server(self, self.server)
        address = f"localhost:{port}"
        self.port = (
            self.server.add_secure_port(address, credentials) if credentials else self.server.add_insecure_port(address)
        )
        self.url = f"http://localhost:{self.port}"
        self.server.start()

    def Execute(self, request, context):
        with self.lock:
            self.seen.append((request, dict(context.invocation_metadata())))
            reply = self.replies.pop(0) if self.replies else codemode_pb2.ExecutionResponse(success=True, result="4")
        if callable(reply):
            reply = reply(request, context)
        if isinstance(reply, tuple):
            context.abort(*reply)
        return reply

    def Health(self, request, context):
        return codemode_pb2.HealthResponse(status="healthy", version="0.1.0", main_app_target="localhost:50051")

    def Ready(self, request, context):
        return codemode_pb2.HealthResponse(status="unreachable", version="0.1.0", main_app_target="localhost:50051")

    def stop(self):
        self.server.stop(0).wait(30)


@contextlib.contextmanager
def fake_executor(**options):
    fake = FakeExecutor(**options)
    try:
        yield fake
    finally:
        fake.stop()


class ToolCaller:
    """Calls a tool service as an executor does."""

    def __init__(self, target, key="", credentials=None):
        self.channel = grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)
        self.stub = codemode_pb2_grpc.ToolServiceStub(self.channel)
        self.metadata = [("authorization", f"Bearer {key}")] if key else []

    def request(self, name, arguments, context=None):
        from codemode.core.values import to_struct

        request = codemode_pb2.ToolCallRequest(tool_name=name, arguments=to_struct(arguments, "arguments"))
        if context:
            request.context.CopyFrom(to_struct(context, "context"))
        return request

    def start(self, name, arguments, context=None, call=None, correlation=None, timeout=60):
        metadata = list(self.metadata)
        if call:
            metadata.append(("x-codemode-call", call))
        if correlation:
            metadata.append(("x-correlation-id", correlation))
        return self.stub.CallTool.future(self.request(name, arguments, context), timeout=timeout, metadata=metadata)

    def answer(self, name, arguments, **more):
        return self.start(name, arguments, **more).result(60)

    def result(self, name, arguments, **more):
        from codemode.core.values import from_struct

        answer = self.answer(name, arguments, **more)
        assert answer.success, answer.error
        return from_struct(answer.result)

    def error(self, name, arguments, **more):
        answer = self.answer(name, arguments, **more)
        assert not answer.success
        return answer.error

    def tools(self):
        from google.protobuf import empty_pb2

        return {tool.name: tool for tool in self.stub.ListTools(empty_pb2.Empty(), metadata=self.metadata, timeout=30).tools}

    def close(self):
        self.channel.close()


def certificates(folder):
    """Writes ca.crt, server.crt/key, client.crt/key and other.crt/key (of another authority) with certtool."""
    import subprocess

    def run(*arguments):
        subprocess.run(["certtool", "--no-text", *arguments], check=True, capture_output=True, timeout=60)

    def template(name, *lines):
        path = folder / f"{name}.template"
        path.write_text("\n".join([f'cn = "{name}"', "expiration_days = 2", *lines]) + "\n")
        return str(path)

    for authority in ("ca", "otherca"):
        run("--generate-privkey", "--key-type=ecdsa", "--outfile", str(folder / f"{authority}.key"))
        run(
            "--generate-self-signed",
            "--load-privkey",
            str(folder / f"{authority}.key"),
            "--template",
            template(authority, "ca", "cert_signing_key"),
            "--outfile",
            str(folder / f"{authority}.crt"),
        )
    for name, authority, use in (
        ("server", "ca", "tls_www_server"),
        ("client", "ca", "tls_www_client"),
        ("renewed", "ca", "tls_www_server"),
        ("other", "otherca", "tls_www_client"),
    ):
        run("--generate-privkey", "--key-type=ecdsa", "--outfile", str(folder / f"{name}.key"))
        run(
            "--generate-certificate",
            "--load-privkey",
            str(folder / f"{name}.key"),
            "--load-ca-certificate",
            str(folder / f"{authority}.crt"),
            "--load-ca-privkey",
            str(folder / f"{authority}.key"),
            "--template",
            template(name, use, "signing_key", 'dns_name = "localhost"', 'ip_address = "127.0.0.1"'),
            "--outfile",
            str(folder / f"{name}.crt"),
        )
    return folder
