# SPDX-License-Identifier: Apache-2.0
"""Says that there is no network, where the C library has not even the functions that would look for it."""

import errno
import socket

_LOOKUPS = ('getaddrinfo', 'gethostbyaddr', 'gethostbyname', 'gethostbyname_ex', 'getnameinfo')


def _no_network(*args, **kwargs):
    raise OSError(errno.ENETUNREACH, 'there is no network in the sandbox')


def install():
    """Libraries expect OSError of a look-up that fails, and would not understand AttributeError."""
    for name in _LOOKUPS:
        if not hasattr(socket._socket, name):
            setattr(socket._socket, name, _no_network)
            if name != 'getaddrinfo':  # that one is a function of socket.py
                setattr(socket, name, _no_network)
    if not hasattr(socket, 'gethostname'):
        socket.gethostname = socket._socket.gethostname = lambda: 'localhost'
