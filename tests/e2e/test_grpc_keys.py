# SPDX-License-Identifier: Apache-2.0
"""Keys over gRPC: every method but the probes wants one, and sessions belong to who made them."""

import grpc
import pytest

from grpc_support import Rpc, code_of
from support import Sidecar

ALICE, BOB = "key-of-alice-0001", "key-of-bob-0000002"
CALLS = {
    "Create": {},
    "Execute": None,
    "Interrupt": {"session_id": "s"},
    "Rollback": {"session_id": "s"},
    "Delete": {"session_id": "s"},
    "Get": {"session_id": "s"},
    "List": {},
    "ReadOutput": {"session_id": "s", "execution_id": "e", "stream": 1},
}


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"alice {ALICE} max_sessions=2 timeout=1s\nbob {BOB}\n", encoding="ascii")
    keys.chmod(0o600)
    server = Sidecar({"CODEMODE_KEYS_FILE": str(keys), "CODEMODE_MAIN_APP_TARGET": "127.0.0.1:1"})
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def clients(sidecar):
    with Rpc(sidecar.port, ALICE) as alice, Rpc(sidecar.port, BOB) as bob, Rpc(sidecar.port) as nobody:
        yield alice, bob, nobody


@pytest.mark.parametrize("key", [None, "", "wrong", ALICE[:-1], ALICE + "x", "key of alice"])
@pytest.mark.parametrize("method", [*CALLS, "once"])
def test_no_method_without_a_key(sidecar, clients, method, key):
    alice, _, nobody = clients
    nobody.key = key
    with pytest.raises(grpc.RpcError) as error:
        if method == "once":
            nobody.execute("1")
        elif method == "Execute":
            nobody.run("", "1")
        else:
            nobody.session_call(method, **CALLS[method])
    assert code_of(error) == grpc.StatusCode.UNAUTHENTICATED
    assert ALICE not in error.value.details()
    nobody.key = None


def test_a_refusal_comes_before_the_message_is_looked_at(clients):
    with pytest.raises(grpc.RpcError) as error:
        clients[2].raw("/codemode.ExecutorService/Execute", b"\xff\xff")
    assert code_of(error) == grpc.StatusCode.UNAUTHENTICATED


def test_probes_need_none_and_say_less_then(clients):
    alice, _, nobody = clients
    assert nobody.probe("Health").status == "healthy" and nobody.probe("Ready").status == "unreachable"
    assert nobody.probe("Health").main_app_target == "" and alice.probe("Health").main_app_target == "127.0.0.1:1"
    assert nobody.unary("/grpc.health.v1.Health/Check", nobody.health.HealthCheckRequest(), nobody.health.HealthCheckResponse)[0].status == 1


def test_the_key_may_come_as_x_api_key(clients):
    nobody = clients[2]
    assert nobody.execute_with_call("result = 1", metadata={"x_api_key": BOB})[0].result == "1"


def test_sessions_belong_to_who_made_them(clients):
    alice, bob, _ = clients
    mine = alice.create()
    assert alice.run(mine, "1").success and mine in alice.session_call("List").session_ids
    assert mine not in bob.session_call("List").session_ids
    for call in (
        lambda: bob.run(mine, "1"),
        lambda: bob.execute_with_call("1", metadata={"x_session_id": mine}),
        lambda: bob.session_call("Get", session_id=mine),
        lambda: bob.session_call("Interrupt", session_id=mine),
        lambda: bob.session_call("Rollback", session_id=mine),
        lambda: bob.session_call("ReadOutput", session_id=mine, execution_id="e", stream=1),
    ):
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert code_of(error) == grpc.StatusCode.NOT_FOUND
    assert bob.session_call("Delete", session_id=mine).deleted is False
    assert alice.session_call("Delete", session_id=mine).deleted is True


def test_limits_of_a_key(clients):
    alice, bob, _ = clients
    made = [alice.create(), alice.create()]
    with pytest.raises(grpc.RpcError) as error:
        alice.create()
    assert code_of(error) == grpc.StatusCode.RESOURCE_EXHAUSTED
    bob.session_call("Delete", session_id=bob.create())
    assert alice.execute("while True: pass", timeout=20).error.startswith("Execution timeout after 1 seconds")
    assert alice.run(made[0], "while True: pass", timeout=20).execution_time < 5
    for session in made:
        alice.session_call("Delete", session_id=session)


def test_keys_are_in_no_log(sidecar):
    text = sidecar.log_text()
    assert ALICE not in text and BOB not in text
