"""One-time login tokens. Whoever may read the page's file in the state directory of `remit up` may log in, as with the
kubeconfig there; of another page, who started it.

A token is `EXPIRES.NONCE.SIGNATURE`. There is a new key each time that the server starts, so no token outlives it, and
the server remembers the nonces that were used until they would have expired.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from remit.errors import RemitError
from remit.privatefiles import read_private, replace_private

PAGE_FILE: Final = "page.json"
"""File of the state directory with the page's address and key, while `remit up` runs."""
LIFETIME_SECONDS: Final = 15 * 60
_TOKEN: Final = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{16,64})\.([0-9a-f]{64})")
_MOST_USED: Final = 1000


class Page(NamedTuple):
    """The key and address from which links that log in are made. It is a secret."""

    url: str
    """The address, such as `http://127.0.0.1:6480`."""
    key: bytes


def new_page(url: str) -> Page:
    """The page of a server that starts, with a new key."""
    return Page(url, secrets.token_bytes(32))


def write_page_file(state_dir: Path, url: str) -> Page:
    """`new_page`, for `read_page_file` to find. Raises OSError."""
    made = new_page(url)
    replace_private(state_dir / PAGE_FILE, orjson.dumps({"url": url, "key": made.key.hex()}) + b"\n")
    return made


def read_page_file(state_dir: Path) -> Page:
    """The page of the running server. Raises `RemitError` if there is none, or its file may not be read."""
    path = state_dir / PAGE_FILE
    try:
        found = orjson.loads(read_private(path))
        return Page(str(found["url"]), bytes.fromhex(found["key"]))
    except FileNotFoundError:
        raise RemitError(
            f"no page is served from {state_dir}; start it with 'remit up', or name the directory"
        ) from None
    except OSError as error:
        raise RemitError(f"{path} cannot be read: {error.strerror}; run this as the user of remit up") from None
    except (ValueError, KeyError, TypeError):
        raise RemitError(f"{path} is damaged; start remit up again") from None


def login_url(page: Page, now: float) -> str:
    """A link that logs in, once. It is a secret."""
    return f"{page.url}/login?token={mint(page.key, now)}"


def mint(key: bytes, now: float) -> str:
    """A token that works once, until `LIFETIME_SECONDS` after `now`, which is in seconds since 1970."""
    body = f"{int(now) + LIFETIME_SECONDS}.{secrets.token_urlsafe(16)}"
    return f"{body}.{_signature(key, body)}"


class Logins:
    """Takes each token once."""

    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        self._key, self._clock = key, clock
        self._used: dict[str, int] = {}
        """When each nonce would have expired."""

    def redeem(self, token: str) -> bool:
        """Whether it is a good token that nobody used before. It is used up."""
        if (found := _TOKEN.fullmatch(token)) is None:
            return False
        expires, nonce, signature = int(found[1]), found[2], found[3]
        now = self._clock()
        self._used = {each: until for each, until in self._used.items() if until >= now}
        genuine = hmac.compare_digest(signature, _signature(self._key, f"{found[1]}.{nonce}"))
        if not genuine or expires < now or nonce in self._used or len(self._used) >= _MOST_USED:
            return False
        self._used[nonce] = expires
        return True


def _signature(key: bytes, body: str) -> str:
    return hmac.new(key, body.encode(), hashlib.sha256).hexdigest()
