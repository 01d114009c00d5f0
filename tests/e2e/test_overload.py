# SPDX-License-Identifier: Apache-2.0
"""Who cannot be served now learns when to come again; nobody is slowed down or killed for it."""

import support


def test_without_memory_no_session_starts():
    with support.running_sidecar(MIN_FREE_MEMORY="900G") as sidecar:
        for path, body in (("/session", None), ("/execute", {"code": "1"})):
            answer = sidecar.request("POST", path, json=body)
            refusal = answer.json()
            assert answer.status_code == 503 and refusal["code"] == "low_memory" and refusal["remediation"]
            assert "MIN_FREE_MEMORY" in refusal["detail"] and int(answer.headers["Retry-After"]) > 0
        assert sidecar.request("GET", "/health").status_code == 200


def test_with_memory_they_do():
    with support.running_sidecar(MIN_FREE_MEMORY="1Mi") as sidecar:
        assert sidecar.create().value("6 * 7") == "42"
