# SPDX-License-Identifier: Apache-2.0
"""Packs one module of CPython's Lib/test with what it needs, found in its own source."""

import base64
import io
import re
import zipfile
from pathlib import Path

ALWAYS = ('__init__.py', 'support')
EXTRA = {
    'test_bz2': ['test_descr.py'],  # takes 128 KiB of text from whatever *.py lie beside it
    'test_tokenize': ['test_descr.py', 'test_re.py', 'test_set.py', 'test_list.py', 'test_dict.py', 'test_json.py',
                      'test_int.py', 'test_long.py', 'test_bool.py', 'test_str.py', 'test_sort.py', 'test_heapq.py'],
    'test_argparse': ['test_tools'],
    'test_zipfile': ['badsyntax_3131.py', 'tokenizedata'],
}


def files_of(tests, module):
    """Paths under `tests` of a module, of test.support, and of every helper or data file that they name."""
    found, queue = set(), [*ALWAYS, *EXTRA.get(module, ()), module.partition('.')[0]]
    while queue:
        name = queue.pop()
        for path in _resolve(tests, name):
            if path in found:
                continue
            found.add(path)
            if path.suffix == '.py' and 'support' not in path.relative_to(tests).parts[:1]:
                queue.extend(_mentions(tests, path))
    return sorted(found)


def _resolve(tests, name):
    target = tests / name
    if target.is_dir():
        return [path for path in target.rglob('*') if path.is_file() and path.suffix != '.pyc']
    if target.is_file():
        return [target]
    source = tests / (name + '.py')
    return [source] if source.is_file() else []


def _mentions(tests, path):
    """Names in the folder `test` that a source file imports, or has in a string (data files).

    By patterns, not by parsing: the tests may use syntax that is newer than the Python which runs this.
    """
    text = path.read_text(encoding='utf-8', errors='replace')
    for names in re.findall(r'^[ \t]*from[ \t]+test[ \t]+import[ \t]+([^\n#]+)', text, re.MULTILINE):
        yield from re.findall(r'\w+', names)
    yield from re.findall(r'\btest\.(\w+)', text)
    for first in re.findall(r'["\']([\w.-]+)(?:/[\w./-]*)?["\']', text):
        if first.strip('.') and first != 'test' and not first.endswith('.py') and (tests / first).exists():
            yield first


def pack(tests, module):
    """The base64 text of a zip file."""
    tests = Path(tests)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=6) as file:
        for path in files_of(tests, module):
            file.write(path, Path('test') / path.relative_to(tests))
    return base64.b64encode(buffer.getvalue()).decode()
