# SPDX-License-Identifier: Apache-2.0
"""The executor's client and `Codemode` against an executor of our own making."""

import asyncio
import re
import threading
import time

import grpc
import pytest

from codemode import (
    Codemode,
    ExecutorClient,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorTimeoutError,
    ValueNotSentError,
)
from codemode.core.correlation import generate_correlation_id
from codemode.core.executor_client import limit_traceback
from codemode.core.values import from_struct
from codemode.protos.codemode_pb2 import ExecutionResponse
from fakes import FakeExecutor, certificates, fake_executor

TRACEBACK = "Traceback (most recent call last):\n" + "".join(
    f'  File "<code>", line {n}, in f{n}\n    f{n + 1}()\n' for n in range(9)
)
FAILED = ExecutionResponse(
    success=False,
    error="division by zero",
    error_type="ZeroDivisionError",
    stderr=TRACEBACK + "ZeroDivisionError: division by zero\n",
    duration_ms=12.5,
)


@pytest.fixture
def fake():
    with fake_executor() as made:
        yield made


@pytest.fixture
def client(fake):
    with ExecutorClient(fake.url, "the-key", retry_backoff_base_ms=10) as made:
        yield made


def test_what_is_sent(fake, client):
    result = client.execute("result = 4", ["weather"], {"a": 1}, 7.2, {"user": {"id": 3}}, "mine-1", "session-1")
    request, metadata = fake.seen[0]
    assert (request.code, list(request.available_tools), request.timeout) == ("result = 4", ["weather"], 8)
    assert from_struct(request.config) == {"a": 1} and from_struct(request.context) == {"user": {"id": 3}}
    assert metadata["authorization"] == "Bearer the-key" and metadata["x-session-id"] == "session-1"
    assert metadata["x-correlation-id"] == request.correlation_id == "mine-1"
    assert result.success and result.result == "4" and result.correlation_id == "mine-1" and result.error is None


def test_an_id_is_made_in_the_documented_form(fake, client):
    result = client.execute("1")
    assert re.fullmatch(r"cm-[a-z0-9]{6}-[a-z0-9]{4}", result.correlation_id)
    assert fake.seen[0][1]["x-correlation-id"] == result.correlation_id
    assert generate_correlation_id("app").startswith("app-")
    with pytest.raises(ValueError, match="printable"):
        client.execute("1", correlation_id="two words")


def test_failed_code_is_a_result(fake, client):
    fake.replies = [FAILED]
    result = client.execute("1/0")
    assert not result.success and result.error == "division by zero" and result.duration_ms == 12.5
    details = result.error_details
    assert (details.error_type, details.message) == ("ZeroDivisionError", "division by zero")
    assert details.traceback.count('File "') == 5 and "4 frames left out" in details.traceback
    assert "in f8" in details.traceback and "in f3" not in details.traceback


def test_limits_of_tracebacks():
    assert limit_traceback("no traceback", 5) == ""
    assert limit_traceback(FAILED.stderr, 0).endswith("ZeroDivisionError: division by zero")
    assert limit_traceback(FAILED.stderr, 50) == FAILED.stderr.rstrip()


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"])
def test_passing_failures_are_tried_again_under_one_id(fake, client, code):
    fake.replies = [(grpc.StatusCode[code], "not now")] * 2
    assert client.execute("1").result == "4"
    assert asyncio.run(client.execute_async("2")).result == "4"
    assert len(fake.seen) == 4 and len({metadata["x-correlation-id"] for _, metadata in fake.seen[:3]}) == 1


@pytest.mark.parametrize("code", ["INTERNAL", "INVALID_ARGUMENT", "UNIMPLEMENTED", "ABORTED", "UNAUTHENTICATED"])
def test_other_failures_are_not(fake, client, code):
    fake.replies = [(grpc.StatusCode[code], "no")] * 2
    with pytest.raises(ExecutorClientError, match="no") as caught:
        client.execute("1")
    assert len(fake.seen) == 1 and caught.value.status == code
    assert isinstance(caught.value, ExecutorConnectionError) == (code == "UNAUTHENTICATED")


def test_attempts_end(fake, client):
    fake.replies = [(grpc.StatusCode.UNAVAILABLE, "gone")] * 9
    with pytest.raises(ExecutorConnectionError, match=r"3 attempts.*gone.*CODEMODE_EXECUTOR_URL"):
        client.execute("1")
    assert len(fake.seen) == 3
    with ExecutorClient(fake.url, retry_enabled=False) as once, pytest.raises(ExecutorConnectionError):
        once.execute("1")
    assert len(fake.seen) == 4
    with ExecutorClient(fake.url, retry_status_codes=["internal"]) as other, pytest.raises(ExecutorConnectionError):
        other.execute("1")
    assert len(fake.seen) == 5


def test_ids_are_sent_without_being_asked_for_only_where_retries_need_them(fake):
    with ExecutorClient(fake.url, include_correlation_id=False, retry_enabled=False) as client:
        client.execute("1")
    with ExecutorClient(fake.url, include_correlation_id=False) as client:
        client.execute("1")
    assert [("x-correlation-id" in metadata) for _, metadata in fake.seen] == [False, True]


def test_deadline(fake):
    gate = threading.Event()
    fake.replies = [lambda request, context: gate.wait(60) and None] * 2
    with ExecutorClient(fake.url, timeout=0.2, retry_enabled=False) as client:
        with pytest.raises(ExecutorTimeoutError, match="correlation_id='cm-"):
            client.execute("1", execution_timeout=0)
        assert client._prepare("1", None, None, 30, None, None, None)[1].deadline == 35
    gate.set()


def test_nobody_listens():
    gone = FakeExecutor()
    gone.stop()
    with ExecutorClient(gone.url, retry_backoff_base_ms=10) as client:
        with pytest.raises(ExecutorConnectionError, match="codemode docker status"):
            client.execute("1")
        assert client.health_check() is False and client.ready_check() is False


def test_an_executor_that_comes_back_is_found(fake, client):
    assert client.execute("1").result == "4"
    fake.stop()
    later = []
    timer = threading.Timer(0.3, lambda: later.append(FakeExecutor(port=fake.port)))
    timer.start()
    with ExecutorClient(fake.url, retry_max_attempts=10, retry_backoff_base_ms=100, retry_backoff_max_ms=300) as patient:
        assert patient.execute("2").result == "4"
    timer.join()
    later[0].stop()


def test_cancelling_withdraws_the_request(fake, client):
    gone = threading.Event()

    def wait(request, context):
        context.add_callback(gone.set)
        gone.wait(60)

    fake.replies = [wait]

    async def main():
        task = asyncio.ensure_future(client.execute_async("1"))
        while not fake.seen:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert gone.wait(30)


def test_async_calls_overlap(fake, client):
    barrier = threading.Barrier(5)
    fake.replies = [lambda request, context: barrier.wait(60) and None or ExecutionResponse(success=True)] * 5

    async def main():
        return await asyncio.gather(*(client.execute_async(str(n)) for n in range(5)))

    assert all(result.success for result in asyncio.run(main()))


def test_closing_ends_calls(fake, client):
    gate = threading.Event()
    fake.replies = [lambda request, context: gate.wait(60) and None]
    threading.Timer(0.1, client.close).start()
    with pytest.raises(ExecutorClientError, match="closed"):
        client.execute("1")
    with pytest.raises(ExecutorClientError, match="closed"):
        client.execute("1")
    client.close()
    gate.set()


def test_health(client):
    assert client.health() == {"status": "healthy", "version": "0.1.0", "main_app_target": "localhost:50051"}
    assert client.health_check() is True and client.ready_check() is False
    assert asyncio.run(client.health_check_async()) is True


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://x:99999", "http://x/path", "http://x:0"])
def test_urls_that_cannot_be_meant(url):
    with pytest.raises(ValueError, match="executor_url"):
        ExecutorClient(url)


@pytest.mark.parametrize(
    "url, target",
    [
        ("http://executor:8001", "executor:8001"),
        ("executor:9", "executor:9"),
        ("http://executor", "executor:8001"),
        ("https://executor", "executor:443"),
        ("http://[::1]:80/", "[::1]:80"),
    ],
)
def test_targets(url, target):
    assert ExecutorClient(url).target == target


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53 + 1, object(), {1, object()}, {("a",): 1}, "\ud800"])
def test_values_that_would_arrive_changed_are_not_sent(fake, client, value):
    with pytest.raises(ValueNotSentError, match="context"):
        client.execute("1", context={"deep": [value]})
    assert not fake.seen


def test_keys_that_cannot_be_one():
    with pytest.raises(ValueError, match="API key"):
        ExecutorClient("http://x", "secret\n")
    assert "secret" not in repr(ExecutorClient("http://x", "secret"))


# --- Codemode


@pytest.fixture
def codemode(fake):
    with Codemode.from_dict({"executor_url": fake.url, "executor_api_key": "k", "max_code_length": 100}) as made:
        yield made


def test_results_as_text(fake, codemode):
    fake.replies = [
        ExecutionResponse(success=True, result="[1, 2]"),
        ExecutionResponse(success=True),
        FAILED,
        (grpc.StatusCode.INTERNAL, "broken"),
    ]
    assert codemode.execute("a") == "[1, 2]"
    assert codemode.execute("b") == "Execution successful"
    assert codemode.execute("c") == "ERROR: ZeroDivisionError: division by zero"
    assert re.match("ERROR: the executor at .* answers INTERNAL: broken", codemode.execute("d"))


def test_long_code_is_not_sent(fake, codemode):
    assert codemode.execute("x" * 101) == (
        "ERROR: SecurityViolation: Security violation: Code exceeds maximum length of 100 characters"
    )
    assert not fake.seen


def test_context_and_config(fake, codemode):
    codemode.registry.set_config(region="eu", depth=1)
    codemode.registry.set_context({"tenant": "none"})
    codemode.registry.register_tool("weather", lambda location: location)
    scoped = codemode.with_context(tenant="acme").with_config(depth=2).with_context({"user": 7})
    scoped.execute("1", execution_timeout=3)
    codemode.execute("2")
    (first, _), (second, _) = fake.seen
    assert from_struct(first.context) == {"tenant": "acme", "user": 7} and from_struct(second.context) == {"tenant": "none"}
    assert from_struct(first.config) == {"region": "eu", "depth": 2} and first.timeout == 3
    assert list(first.available_tools) == ["weather"] and from_struct(second.config) == {"region": "eu", "depth": 1}


def test_async_forms(fake, codemode):
    async def main():
        async with Codemode(executor_client=ExecutorClient(fake.url)) as made:
            scoped = await (await made.with_context_async(a=1)).with_config_async(b=2)
            return await scoped.execute_async("1"), await made.health_check_async()

    assert asyncio.run(main()) == ("4", True)
    assert from_struct(fake.seen[0][0].context) == {"a": 1}


# --- TLS


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("pems"))


@pytest.fixture
def secure(pems):
    def read(name):
        return (pems / name).read_bytes()

    credentials = grpc.ssl_server_credentials([(read("server.key"), read("server.crt"))], read("ca.crt"), True)
    with fake_executor(credentials=credentials) as made:
        yield made


def tls(pems, client="client", ca="ca"):
    return {
        "mode": "custom",
        "ca_file": str(pems / f"{ca}.crt"),
        **({"client_cert_file": str(pems / f"{client}.crt"), "client_key_file": str(pems / f"{client}.key")} if client else {}),
    }


def test_mutual_tls(secure, pems):
    with ExecutorClient(secure.url, "k", tls_config=tls(pems)) as client:
        assert client.execute("1").result == "4"
    with ExecutorClient(secure.url.replace("http", "https"), "k", tls_config={**tls(pems), "enabled": False}) as client:
        assert client.execute("1").result == "4"  # https says so


@pytest.mark.parametrize("how", ["no certificate", "another authority's certificate", "another authority", "plain", "system"])
def test_tls_fails_closed(secure, pems, how):
    config = {
        "no certificate": tls(pems, client=None),
        "another authority's certificate": tls(pems, client="other"),
        "another authority": tls(pems, ca="otherca"),
        "plain": None,
        "system": {"mode": "system"},
    }[how]
    with ExecutorClient(secure.url, "k", tls_config=config, retry_enabled=False, timeout=30) as client:
        with pytest.raises(ExecutorConnectionError, match="TLS"):
            client.execute("1")
    assert not secure.seen


@pytest.mark.parametrize(
    "change, text",
    [
        ({"client_key_file": None}, "belong together"),
        ({"ca_file": None}, "needs ca_file"),
        ({"ca_file": "/nowhere"}, "cannot be read"),
        ({"client_key_file": "server.key"}, "do not fit"),
        ({"ca_files": "x"}, "did you mean 'ca_file'"),
        ({"mode": "none"}, "must be one of"),
    ],
)
def test_tls_that_cannot_be_meant(pems, change, text):
    change = {key: str(pems / value) if key == "client_key_file" and value else value for key, value in change.items()}
    with pytest.raises(ValueError, match=text):
        ExecutorClient("https://localhost:1", tls_config={**tls(pems), **change}).health()


def test_waits_between_attempts_stay_in_their_bounds(fake):
    with ExecutorClient(fake.url, retry_backoff_base_ms=40, retry_backoff_max_ms=50, retry_max_attempts=4) as client:
        fake.replies = [(grpc.StatusCode.UNAVAILABLE, "no")] * 3
        started = time.monotonic()
        client.execute("1")
        assert time.monotonic() - started >= 0.032 + 0.05 + 0.05
