# SPDX-License-Identifier: Apache-2.0
"""The standard library inside a session."""

import pytest

IMPORTS = """
abc argparse array ast asyncio base64 binascii bisect builtins bz2 calendar cmath codecs collections collections.abc
colorsys concurrent.futures configparser contextlib contextvars copy csv dataclasses datetime decimal difflib dis
doctest email email.message enum errno fnmatch fractions functools gc getpass gettext glob graphlib gzip hashlib heapq
hmac html html.parser http http.client importlib importlib.metadata importlib.resources inspect io ipaddress itertools
json keyword linecache locale logging logging.handlers lzma mailbox marshal math mimetypes numbers operator os os.path
pathlib pickle pickletools pkgutil platform plistlib pprint profile queue quopri random re reprlib runpy sched secrets
selectors shelve shlex shutil signal socket sqlite3 ssl_free statistics string stringprep struct sys sysconfig tarfile tempfile
textwrap threading time timeit token tokenize tomllib trace traceback tracemalloc types typing unicodedata unittest
unittest.mock urllib.error urllib.parse urllib.request uuid warnings weakref xml.dom.minidom xml.etree.ElementTree xml.sax
zipfile zlib zoneinfo pyexpat _elementtree _decimal _json _datetime _struct _pickle _bisect _heapq _random _csv
""".replace("ssl_free ", "").split()

CHECKS = {
    "zlib": ("zlib.decompress(zlib.compress(b'a' * 99)) == b'a' * 99", "True"),
    "bz2": ("bz2.decompress(bz2.compress(b'abc'))", "b'abc'"),
    "lzma": ("lzma.decompress(lzma.compress(b'abc'))", "b'abc'"),
    "gzip": ("gzip.decompress(gzip.compress(b'abc'))", "b'abc'"),
    "json": ("json.loads(json.dumps({'a': [1, 2.5, None, 'é']}))", "{'a': [1, 2.5, None, 'é']}"),
    "decimal": ("decimal.Decimal(1) / decimal.Decimal(7)", "Decimal('0.1428571428571428571428571429')"),
    "datetime": ("datetime.date(2024, 2, 29) + datetime.timedelta(days=366)", "datetime.date(2025, 3, 1)"),
    "unicodedata": ("unicodedata.normalize('NFD', 'é') == 'e\\u0301'", "True"),
    "sqlite3": ("sqlite3.connect(':memory:').execute('select sqlite_version() > \"3\", 1 + 1').fetchone()", "(1, 2)"),
    "re": ("re.findall(r'(?P<w>\\w+)@', 'a@b c@d')", "['a', 'c']"),
    "random": ("random.seed(1); random.random()", "0.13436424411240122"),
    "math": ("math.comb(50, 25), math.isclose(math.gamma(0.5) ** 2, math.pi)", "(126410606437752, True)"),
    "statistics": ("statistics.median([3, 1, 2])", "2"),
    "struct": ("struct.pack('<Ih', 1, -2)", "b'\\x01\\x00\\x00\\x00\\xfe\\xff'"),
    "uuid": ("uuid.uuid4().version", "4"),
    "tomllib": ("tomllib.loads('a = 1')", "{'a': 1}"),
    "csv": ("list(csv.reader(['a,\"b,c\"']))", "[['a', 'b,c']]"),
    "platform": ("platform.python_version_tuple()[:2]", "('3', '13')"),
    "ast": ("ast.literal_eval('[1, (2,)]')", "[1, (2,)]"),
    "tempfile": ("tempfile.gettempdir()", "'/tmp'"),
    "time": ("time.time() > 1.6e9 and time.monotonic() >= 0", "True"),
    "zoneinfo": ("zoneinfo.ZoneInfo('Europe/Berlin').utcoffset(__import__('datetime').datetime(2024, 7, 1)).seconds", "7200"),
    "xml.etree.ElementTree": ("xml.etree.ElementTree.fromstring('<a><b c=\"1\"/></a>')[0].get('c')", "'1'"),
    "pyexpat": ("pyexpat.ParserCreate().Parse('<a/>', True)", "1"),
    "zipfile": ("b = __import__('io').BytesIO(); z = zipfile.ZipFile(b, 'w', 8); z.writestr('n', 'x' * 99); z.close(); zipfile.ZipFile(b).read('n') == b'x' * 99", "True"),
    "tarfile": ("b = __import__('io').BytesIO(); t = tarfile.open(fileobj=b, mode='w:gz'); t.close(); len(b.getvalue()) > 0", "True"),
}

DIGESTS = {
    "md5": "900150983cd24fb0d6963f7d28e17f72",
    "sha1": "a9993e364706816aba3e25717850c26c9cd0d89d",
    "sha224": "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
    "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "sha3_256": "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
    "blake2s": "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982",
}


@pytest.mark.parametrize("name", IMPORTS)
def test_import(shared, name):
    shared.ok(f"import {name}")


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_works(shared, name):
    expression, expected = CHECKS[name]
    assert shared.value(f"import {name}\n{expression}") == expected


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_hashes(shared, name):
    assert shared.value(f"import hashlib\nhashlib.{name}(b'abc').hexdigest()") == repr(DIGESTS[name])
    assert shared.value(f"hashlib.new({name!r}, b'abc').hexdigest()") == repr(DIGESTS[name])


@pytest.mark.parametrize("name", ["sha384", "sha512", "sha3_224", "sha3_384", "sha3_512", "shake_128", "shake_256", "blake2b"])
def test_further_hashes(shared, name):
    import hashlib

    size = "16" if name.startswith("shake") else ""
    expected = getattr(hashlib, name)(b"abc").hexdigest(*([16] if size else []))
    assert shared.value(f"import hashlib\nhashlib.{name}(b'abc').hexdigest({size})") == repr(expected)


def test_hmac(shared):
    import hmac

    expected = hmac.new(b"k", b"abc", "sha256").hexdigest()
    assert shared.value("import hmac\nhmac.new(b'k', b'abc', 'sha256').hexdigest()") == repr(expected)


def test_version_and_platform(shared):
    assert shared.value("import sys\nsys.version_info[:2], sys.platform, sys.maxsize > 0") == "((3, 13), 'wasi', True)"


def test_main_is_the_session(shared):
    assert shared.value("__name__") == "'__main__'"
    assert shared.value("import __main__\n__main__.__dict__ is globals()") == "True"
