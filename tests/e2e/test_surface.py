# SPDX-License-Identifier: Apache-2.0
"""What the sandbox can reach: the imports of the guest's module, and the code that its program is linked with."""

import re
import subprocess

import pytest

from support import BUILD

SANDBOX = BUILD / "codemode-sandbox"


def test_the_guest_has_eleven_imports():
    header = (BUILD / "guest/code/guest.h").read_text()
    imports = sorted(set(re.findall(r"\bZ_(\w+?)Z_(\w+)\(", header)))
    assert imports == [("host", name) for name in "answer call clock emit exit guard random spawn switch take wait".split()]


def test_the_sandbox_is_static():
    headers = subprocess.run(["readelf", "-lW", SANDBOX], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in headers and "DYNAMIC" not in headers
    assert "RWE" not in headers  # no memory that is writable and executable


def symbols():
    listed = subprocess.run(["nm", SANDBOX], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in listed.splitlines()}


@pytest.mark.parametrize("prefix", ["uv_", "gnutls_", "json_", "curl_", "MHD_", "cm_http", "cm_sessions", "SSL_"])
def test_the_sandbox_links_no_library_for(prefix):
    found = symbols()
    assert "cm_worker_serve" in found  # it is not stripped: the absence of the others says something
    assert not [name for name in found if name.startswith(prefix)]


@pytest.mark.parametrize("name", ["socket", "connect", "bind", "getaddrinfo", "execve", "posix_spawn", "dlopen", "system"])
def test_our_objects_do_not_ask_for(name):
    folder = SANDBOX.resolve().parent
    asked = subprocess.run(["ninja", "-C", folder, "-t", "query", "codemode-sandbox"], capture_output=True, text=True, check=True).stdout
    objects = [folder / path for path in re.findall(r"^ +(src/\S+\.o)$", asked, re.M)]
    for part in ("base_fd", "guest_engine", "jail_apply", "roles_worker"):
        assert any(path.name.endswith(f"_{part}.c.o") for path in objects), (part, objects)
    wanted = subprocess.run(["nm", "-u", *objects], capture_output=True, text=True, check=True).stdout
    assert not re.search(rf"\bU {name}$", wanted, re.M)
