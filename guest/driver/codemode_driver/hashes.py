# SPDX-License-Identifier: Apache-2.0
"""hashlib.pbkdf2_hmac, which CPython knows from OpenSSL only."""

import hashlib
import operator

_INT_MAX = (1 << 31) - 1


def _between(name, value):
    value = operator.index(value)
    if value < 1:
        raise ValueError(f'{name} must be greater than 0.')
    if value > _INT_MAX:
        raise OverflowError(f'{name} is too great.')
    return value


def _keyed(hash_name, key):
    """The two hashes of HMAC, inner and outer, each with the padded key in it."""
    plain = hashlib.new(hash_name)
    if not plain.digest_size:
        raise ValueError(f'unsupported hash type {hash_name}')  # shake: HMAC wants a fixed length
    if len(key) > plain.block_size:
        key = hashlib.new(hash_name, key).digest()
    key = key.ljust(plain.block_size, b'\0')
    return [hashlib.new(hash_name, bytes(byte ^ pad for byte in key)) for pad in (0x36, 0x5C)]


def _block(inner, outer, text, iterations):
    """One block of the key: the exclusive or of HMAC(text), HMAC(HMAC(text)) and so on."""
    total = 0
    for _ in range(iterations):
        first, second = inner.copy(), outer.copy()
        first.update(text)
        second.update(first.digest())
        text = second.digest()
        total ^= int.from_bytes(text)
    return total.to_bytes(outer.digest_size)


def pbkdf2_hmac(hash_name, password, salt, iterations, dklen=None):
    """Password based key derivation function 2 (PKCS #5 v2.0) with HMAC as pseudorandom function."""
    if not isinstance(hash_name, str):
        raise TypeError(f"pbkdf2_hmac() argument 'hash_name' must be str, not {type(hash_name).__name__}")
    password, salt = bytes(memoryview(password)), bytes(memoryview(salt))
    inner, outer = _keyed(hash_name, password)
    iterations = _between('iteration value', iterations)
    dklen = outer.digest_size if dklen is None else _between('key length', dklen)
    key = bytearray()
    while len(key) < dklen:
        number = len(key) // outer.digest_size + 1
        key += _block(inner, outer, salt + number.to_bytes(4), iterations)
    return bytes(key[:dklen])


def install():
    if not hasattr(hashlib, 'pbkdf2_hmac'):
        pbkdf2_hmac.__module__ = 'hashlib'
        hashlib.pbkdf2_hmac = pbkdf2_hmac
        hashlib.__all__ += ('pbkdf2_hmac',)
