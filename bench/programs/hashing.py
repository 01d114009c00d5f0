# SPDX-License-Identifier: Apache-2.0
"""hashlib, zlib and base64 over many small pieces, as ids and checksums need them."""

import base64
import hashlib
import zlib


def run():
    digest, check, size = b"seed", 0, 0
    for number in range(75000):
        digest = hashlib.sha256(digest + number.to_bytes(4, "little")).digest()
        check = zlib.crc32(digest, check)
        if number % 10 == 0:
            size += len(zlib.compress(digest * 20, 1)) + len(base64.b64encode(digest))
    if size == 0:
        raise ValueError("nothing was compressed")
    return digest.hex()[:16], check, hashlib.md5(str(check).encode()).hexdigest()[:8]
