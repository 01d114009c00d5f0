#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the archive that becomes the guest's /usr: standard library, driver and time zones.

Run it with the build-time CPython of the guest's own version, whose byte code is the guest's. Sources are kept, so
that tracebacks and inspect show them; byte code lies beside them, never checked against their times.

usage: stdlib.py LIB_DIR DRIVER_DIR SYSCONFIG_DATA ZONEINFO_DIR OUT.tar
"""
import os
import sys
from importlib._bootstrap_external import _code_to_hash_pyc
from importlib.util import source_hash
from pathlib import Path

ROOT = 'usr/lib/python3.13'
TIME = 1748995200  # the day of 3.13.5's release: the same for every build

# What cannot work without a screen, a shell or a package index, and the tests of the library itself.
LEFT_OUT = {'test', 'tests', 'idlelib', 'idle_test', 'tkinter', 'turtledemo', 'turtle.py', 'ensurepip', 'lib2to3', 'curses',
            '__pycache__', 'pydoc_data', 'site-packages', '__phello__'}


def header(name, size, kind):
    """A POSIX ustar header: the build's CPython has no struct, so it has no tarfile."""
    prefix, base = '', name
    if len(base) > 100:
        cut = name.index('/', len(name) - 101)
        prefix, base = name[:cut], name[cut + 1:]
    mode = 0o755 if kind == '5' else 0o644
    fields = [(base, 100), (f'{mode:07o}', 8), ('0000000', 8), ('0000000', 8), (f'{size:011o}', 12), (f'{TIME:011o}', 12),
              (' ' * 8, 8), (kind, 1), ('', 100), ('ustar', 6), ('00', 2), ('', 32), ('', 32), ('', 8), ('', 8),
              (prefix, 155), ('', 12)]
    block = bytearray(b''.join(text.encode().ljust(width, b'\0') for text, width in fields))
    block[148:156] = f'{sum(block):06o}\0 '.encode()
    assert len(block) == 512
    return block


class Archive:
    def __init__(self, path):
        self.out = open(path, 'wb')
        self.dirs = set()

    def directory(self, name):
        if not name or name in self.dirs:
            return
        self.directory(os.path.dirname(name))
        self.dirs.add(name)
        self.out.write(header(name, 0, '5'))

    def file(self, name, data):
        self.directory(os.path.dirname(name))
        self.out.write(header(name, len(data), '0') + data + bytes(-len(data) % 512))

    def close(self):
        self.out.write(bytes(1024))
        self.out.close()

    def module(self, name, source):
        self.file(name, source)
        code = compile(source, '/' + name, 'exec', dont_inherit=True, optimize=0)
        folder, base = os.path.split(name)
        self.file(f'{folder}/__pycache__/{base[:-3]}.cpython-313.pyc',
                  bytes(_code_to_hash_pyc(code, source_hash(source), checked=False)))

    def tree(self, top, prefix):
        for path in sorted(Path(top).rglob('*')):
            relative = path.relative_to(top)
            if LEFT_OUT.intersection(relative.parts) or not path.is_file():
                continue
            name = f'{prefix}/{relative}'
            if path.suffix == '.py':
                self.module(name, path.read_bytes())
            elif path.suffix not in ('.pyc', '.exe', '.bat'):
                self.file(name, path.read_bytes())


def zones(archive, top):
    """Plain zone files; the variants with leap seconds (right/) and the copies in posix/ stay out."""
    for path in sorted(Path(top).rglob('*')):
        relative = path.relative_to(top)
        if path.is_file() and relative.parts[0] not in ('right', 'posix'):
            data = path.read_bytes()
            if data[:4] == b'TZif' or path.name in ('tzdata.zi', 'zone.tab', 'zone1970.tab', 'iso3166.tab'):
                archive.file(f'usr/share/zoneinfo/{relative}', data)


def main():
    lib, driver, sysconfig_data, zoneinfo, out = sys.argv[1:]
    assert sys.version_info[:2] == (3, 13), 'the byte code must be the guest\'s'
    archive = Archive(out + '.part')
    archive.tree(lib, ROOT)
    archive.tree(driver, ROOT + '/codemode_driver')
    archive.module(f'{ROOT}/{Path(sysconfig_data).name}', Path(sysconfig_data).read_bytes())
    archive.directory(f'{ROOT}/site-packages')
    zones(archive, zoneinfo)
    archive.close()
    os.replace(out + '.part', out)


if __name__ == '__main__':
    main()
