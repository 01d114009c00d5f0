# SPDX-License-Identifier: Apache-2.0
"""Talking gRPC to a sidecar with another implementation: grpcio, and stubs that protoc makes of proto/ on the spot."""

import functools
import importlib
import json
import pathlib
import subprocess
import sys
import tempfile

import grpc

from support import PATIENCE, ROOT

_FOLDER = tempfile.TemporaryDirectory(prefix="codemode-protos-")


@functools.cache
def messages(name):
    """The Python module of proto/NAME.proto."""
    folder = pathlib.Path(_FOLDER.name)
    subprocess.run(["protoc", f"--proto_path={ROOT / 'proto'}", f"--python_out={folder}", f"{name}.proto"], check=True)
    if _FOLDER.name not in sys.path:
        sys.path.insert(0, _FOLDER.name)
    return importlib.import_module(f"{name}_pb2")


class Rpc:
    """A channel to a port of the loopback, and its methods. Options as grpcio takes them."""

    def __init__(self, port, key=None, options=(), credentials=None):
        self.v0, self.v1, self.health = (messages(n) for n in ("codemode", "codemode_v1", "grpc_health_v1"))
        target = f"localhost:{port}" if credentials else f"127.0.0.1:{port}"
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 << 20), *options]
        self.channel = (
            grpc.secure_channel(target, credentials, options) if credentials else grpc.insecure_channel(target, options)
        )
        self.key = key

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _metadata(self, metadata):
        keyed = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return tuple({**keyed, **{k.replace("_", "-"): v for k, v in metadata.items()}}.items())

    def unary(self, path, request, answer, timeout=30, **metadata):
        """(answer, call) of one unary call."""
        method = self.channel.unary_unary(
            path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString
        )
        return method.with_call(request, timeout=timeout * PATIENCE, metadata=self._metadata(metadata))

    def raw(self, path, data, timeout=30, **metadata):
        """The bytes that answer bytes."""
        return self.channel.unary_unary(path)(data, timeout=timeout * PATIENCE, metadata=self._metadata(metadata))

    # --- codemode.ExecutorService

    def execute_with_call(self, code, timeout=0, call_timeout=30, metadata=None, **fields):
        request = self.v0.ExecutionRequest(code=code, timeout=timeout)
        for name in ("config", "context"):
            if name in fields:
                getattr(request, name).update(fields.pop(name))
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(request, name).extend(value)
            else:
                setattr(request, name, value)
        path = "/codemode.ExecutorService/Execute"
        return self.unary(path, request, self.v0.ExecutionResponse, call_timeout, **(metadata or {}))

    def execute(self, code, **fields):
        return self.execute_with_call(code, **fields)[0]

    def probe(self, which):
        """Health or Ready."""
        from google.protobuf import empty_pb2

        path = f"/codemode.ExecutorService/{which}"
        return self.unary(path, empty_pb2.Empty(), self.v0.HealthResponse)[0]

    # --- codemode.v1.Sessions

    def session_call(self, method, timeout=30, metadata=None, **fields):
        answers = {"Get": "Session"}
        request = getattr(self.v1, f"{method}Request")(**fields)
        answer = getattr(self.v1, answers.get(method, f"{method}Response"))
        return self.unary(f"/codemode.v1.Sessions/{method}", request, answer, timeout, **(metadata or {}))[0]

    def create(self, **fields):
        return self.session_call("Create", **fields).session_id

    def stream(self, session, code, call_timeout=30, metadata=None, **fields):
        """The stream of events of one execution."""
        if "context" in fields:
            fields["context_json"] = json.dumps(fields.pop("context"))
        request = self.v1.ExecuteRequest(session_id=session, code=code, **fields)
        method = self.channel.unary_stream(
            "/codemode.v1.Sessions/Execute",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=self.v1.ExecuteEvent.FromString,
        )
        return method(request, timeout=call_timeout * PATIENCE, metadata=self._metadata(metadata or {}))

    def run(self, session, code, **fields):
        """The result of one execution, its last event."""
        return list(self.stream(session, code, **fields))[-1].result


def code_of(error):
    """The status of a failed call, from pytest.raises()."""
    return error.value.code()
