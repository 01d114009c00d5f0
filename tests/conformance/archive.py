# SPDX-License-Identifier: Apache-2.0
"""Packs one module of CPython's Lib/test with what it needs, found in its own source."""

import ast
import base64
import io
import zipfile
from pathlib import Path

ALWAYS = ('__init__.py', 'support')
EXTRA = {
    'test_bz2': ['test_descr.py'],  # takes 128 KiB of text from whatever *.py lie beside it
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
    """Names in the folder `test` that a source file imports, or has in a string (data files)."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == 'test':
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith('test.'):
            yield node.module.split('.')[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split('.')[1] for alias in node.names if alias.name.startswith('test.'))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _named_by_string(tests, node.value)


def _named_by_string(tests, text):
    if not text or len(text) > 200 or '\n' in text or '\0' in text or text.startswith('.'):
        return
    if text.startswith('test.'):
        yield text.split('.')[1]
    first = text.replace('\\', '/').split('/')[0]
    if first and first != 'test' and not first.endswith('.py') and (tests / first).exists():
        yield first


def pack(tests, module):
    """The base64 text of a zip file."""
    tests = Path(tests)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=6) as file:
        for path in files_of(tests, module):
            file.write(path, Path('test') / path.relative_to(tests))
    return base64.b64encode(buffer.getvalue()).decode()
