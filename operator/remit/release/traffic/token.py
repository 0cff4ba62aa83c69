"""By what the proxies know the requests of the operator's own probe: a token for each Deployment.

Tokens are made of one key, and written nowhere: the configuration of a proxy has the hash. Whoever serves at one
Deployment's port in the proxy's place, and so hears its token, can do nothing with it at another's.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final

from remit.privatefiles import read_private, replace_private

_KEY_BYTES: Final = 32


def read_key(path: Path) -> bytes:
    """The key in the file `path`, which is made where it is missing or was cut off.

    Raises InvalidInput where it is no file or somebody else's, and OSError.
    """
    try:
        key = read_private(path)
    except FileNotFoundError:
        key = b""
    if len(key) != _KEY_BYTES:
        key = secrets.token_bytes(_KEY_BYTES)
        replace_private(path, key)
    return key


def token_of(key: bytes, name: str) -> str:
    """The token of the Deployment `name`, as `namespace/name`, in lower-case hex."""
    return hmac.digest(key, name.encode(), "sha256").hex()


def hashed(token: str) -> str:
    """The form of a token in a proxy's configuration: its SHA-256 as HAProxy's converter `hex` writes it."""
    return hashlib.sha256(token.encode()).hexdigest().upper()
