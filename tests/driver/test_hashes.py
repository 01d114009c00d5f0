# SPDX-License-Identifier: Apache-2.0
import hashlib
import unittest

from codemode_driver import hashes
from support import DriverTest

# RFC 6070, and RFC 7914 section 11; left out is the one with 16,777,216 iterations
VECTORS = (
    ('sha1', b'password', b'salt', 1, 20, '0c60c80f961f0e71f3a9b524af6012062fe037a6'),
    ('sha1', b'password', b'salt', 2, 20, 'ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957'),
    ('sha1', b'password', b'salt', 4096, 20, '4b007901b765489abead49d926f721d065a429c1'),
    ('sha1', b'passwordPASSWORDpassword', b'saltSALTsaltSALTsaltSALTsaltSALTsalt', 4096, 25,
     '3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038'),
    ('sha1', b'pass\0word', b'sa\0lt', 4096, 16, '56fa6aa75548099dcc37d7f03425e0c3'),
    ('sha256', b'passwd', b'salt', 1, 64, '55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc'
     '49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783'),
    ('sha256', b'Password', b'NaCl', 80000, 64, '4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56'
     'a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d'),
)


class Pbkdf2(unittest.TestCase):
    def test_vectors(self):
        for name, password, salt, iterations, dklen, expected in VECTORS:
            self.assertEqual(hashes.pbkdf2_hmac(name, password, salt, iterations, dklen).hex(), expected)

    def test_forms_of_arguments(self):
        key = hashes.pbkdf2_hmac(hash_name='sha256', password=bytearray(b'p'), salt=memoryview(b's'), iterations=2)
        self.assertEqual((type(key), len(key)), (bytes, 32))
        self.assertEqual(key, hashes.pbkdf2_hmac('sha256', b'p', b's', 2, dklen=32))
        self.assertEqual(key[:7], hashes.pbkdf2_hmac('sha256', b'p', b's', 2, dklen=7))

    def test_long_password(self):
        # HMAC takes the hash of a key that is longer than a block
        short = hashes.pbkdf2_hmac('sha512', hashlib.sha512(b'p' * 129).digest(), b's', 1)
        self.assertEqual(hashes.pbkdf2_hmac('sha512', b'p' * 129, b's', 1), short)
        self.assertNotEqual(hashes.pbkdf2_hmac('sha512', hashlib.sha512(b'p' * 128).digest(), b's', 1),
                            hashes.pbkdf2_hmac('sha512', b'p' * 128, b's', 1))

    def test_errors(self):
        for kind, arguments in ((TypeError, (1, b'', b'', 1)), (TypeError, ('sha1', '', b'', 1)),
                                (TypeError, ('sha1', b'', '', 1)), (TypeError, ('sha1', b'', b'', 1.0)),
                                (TypeError, ('sha1', b'', b'', 1, 2.0)), (ValueError, ('none', b'', b'', 1)),
                                (ValueError, ('shake_128', b'', b'', 1)), (ValueError, ('sha1', b'', b'', 0)),
                                (ValueError, ('sha1', b'', b'', -1)), (ValueError, ('sha1', b'', b'', 1, 0)),
                                (OverflowError, ('sha1', b'', b'', 1 << 31)), (OverflowError, ('sha1', b'', b'', 1, 1 << 31))):
            with self.assertRaises(kind, msg=arguments):
                hashes.pbkdf2_hmac(*arguments)

    def test_is_in_hashlib(self):
        from hashlib import pbkdf2_hmac
        self.assertIn('pbkdf2_hmac', hashlib.__all__)
        self.assertEqual(pbkdf2_hmac('sha256', b'passwd', b'salt', 1, 64).hex(), VECTORS[5][5])


class Neighbours(DriverTest):
    """What code that hashes or wants random numbers reaches for first."""

    def test_hmac(self):
        expected = "'f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8'"
        text = 'b"The quick brown fox jumps over the lazy dog"'
        self.value('import hmac, hashlib')
        self.assertEqual(self.value(f'hmac.new(b"key", {text}, "sha256").hexdigest()'), expected)
        self.assertEqual(self.value(f'hmac.new(b"key", {text}, hashlib.sha256).hexdigest()'), expected)
        self.assertEqual(self.value(f'hmac.digest(b"key", {text}, "sha256").hex()'), expected)
        self.assertEqual(self.value('hmac.compare_digest("a", "a"), hmac.compare_digest(b"a", b"b")'), '(True, False)')

    def test_file_digest(self):
        self.value('import hashlib, io, tempfile\nfile = tempfile.TemporaryFile()\nfile.write(b"x" * 300_000)\nfile.seek(0)')
        self.assertEqual(self.value('hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(b"x" * 300_000).digest()'), 'True')
        self.assertEqual(self.value('hashlib.file_digest(io.BytesIO(b"x"), hashlib.md5).hexdigest() == hashlib.md5(b"x").hexdigest()'), 'True')

    def test_random_numbers(self):
        self.value('import random, secrets, uuid')
        for code in ('secrets.token_bytes()', 'secrets.token_hex(16)', 'secrets.token_urlsafe()', 'secrets.randbits(256)',
                     'uuid.uuid4()', 'uuid.uuid1()', 'random.SystemRandom().getrandbits(256)', 'random.SystemRandom().random()'):
            self.assertNotEqual(self.value(code), self.value(code), code)
        self.assertEqual(self.value('secrets.choice("a"), secrets.randbelow(1), uuid.uuid4().version'), "('a', 0, 4)")


if __name__ == '__main__':
    unittest.main()
