"""One prefix of one bucket: whole small objects by their keys.

No multipart uploads: what one that is broken off leaves is in no listing of objects, and costs. Contents are cut into
objects instead.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store as Client

from remit.errors import InvalidInput
from remit.execution.artifacts.s3.failures import Failure, failure, unavailable
from remit.execution.artifacts.s3.location import S3Location

_CONNECT: Final = datetime.timedelta(seconds=10)
_REQUEST: Final = datetime.timedelta(seconds=120)
"""A whole one, with its content: 8 MiB at 70 KiB a second."""
_RETRY: Final = datetime.timedelta(seconds=60)
_TRIES: Final = 3
"""How often a write is tried that the client does not repeat itself, not knowing that it is idempotent."""
_CREDENTIAL_BYTES: Final = 16 << 10
_FRESH: Final = datetime.timedelta(minutes=5)
_DELETED_AT_ONCE: Final = 1000
_LISTED_AT_ONCE: Final = 1000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """An object: `time` is when it was written, in seconds since 1970, by the store's clock."""

    key: str
    size: int
    time: float
    etag: str


class Bucket:
    """Every method blocks, at most some minutes, and raises `StoreUnavailable`; several threads may call them."""

    def __init__(self, where: S3Location, *, tries: int = _TRIES) -> None:
        """Connects to nothing yet. Raises `InvalidInput` for files that cannot be read."""
        self.where = where
        self._tries = tries
        options: dict[str, Any] = {
            "allow_http": where.endpoint.startswith("http://"),
            "connect_timeout": _CONNECT,
            "timeout": _REQUEST,
        }
        config: dict[str, Any] = {"virtual_hosted_style_request": False}
        more: dict[str, Any] = {}
        try:
            if where.ca_file is not None:
                options["root_certificate"] = where.ca_file.read_bytes()
            if where.credentials is not None:
                _credentials(where.credentials)
                more["credential_provider"] = lambda folder=where.credentials: _credentials(folder)
        except OSError as error:
            raise InvalidInput(f"{error.filename}: {error.strerror}", field="--artifact-store") from None
        config |= {name: value for name in ("endpoint", "region") if (value := getattr(where, name))}
        try:
            self._client = Client(
                where.bucket,
                prefix=where.prefix or None,
                config=config,  # type: ignore[arg-type]
                client_options=options,  # type: ignore[arg-type]
                retry_config={"max_retries": 4 if tries > 1 else 0, "retry_timeout": _RETRY},
                **more,
            )
        except (BaseError, ValueError):
            raise InvalidInput("the settings of object storage are not accepted; see --s3-ca-file") from None

    def put(self, key: str, content: bytes | memoryview) -> None:
        """Stores an object completely or not at all."""
        self._asked(lambda: obstore.put(self._client, key, content, use_multipart=False))

    def get(self, key: str) -> bytes | None:
        """Returns the content of an object. None if it does not exist."""
        return self._asked(lambda: bytes(obstore.get(self._client, key).bytes()), missing=None)

    def list(self, folder: str) -> Iterator[Entry]:
        """List what lies below `folder`."""
        pages: Iterator[Any] | None = None
        last: str | None = None

        def following() -> Any:
            nonlocal pages
            begun = pages or iter(obstore.list(self._client, folder, offset=last, chunk_size=_LISTED_AT_ONCE))
            pages = None  # after a failure, this iterator would report the end of the list at the next call
            page = next(begun, None)
            pages = begun
            return page

        while page := self._asked(following):
            for each in page:
                yield Entry(each["path"], each["size"], each["last_modified"].timestamp(), each["e_tag"] or "")
            last = page[-1]["path"]

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, also those that do not exist."""
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            some = list(keys[start : start + _DELETED_AT_ONCE])
            self._asked(lambda some=some: obstore.delete(self._client, some), missing=None)  # type: ignore[misc]

    def _asked(self, ask: Callable[[], T], **missing: T) -> T:
        for attempt in range(1, self._tries + 1):
            try:
                return ask()
            except FileNotFoundError as error:
                found = failure(str(error))
                if "missing" in missing and found.code != "NoSuchBucket":
                    return missing["missing"]
            except (BaseError, OSError) as error:
                found = failure(str(error))
            except InvalidInput as error:  # the files with the credentials were replaced
                found = Failure(str(error), lasting=True)
            if found.lasting or attempt == self._tries:
                break
            time.sleep(attempt)
        raise unavailable(self.where, found) from None


def _credentials(folder: Path) -> Any:
    """Credentials from the files of a folder, which are reread from time to time, because they may be renewed."""
    try:
        token = _text(folder / "session-token")
    except FileNotFoundError:
        token = None
    return {
        "access_key_id": _text(folder / "access-key-id"),
        "secret_access_key": _text(folder / "secret-access-key"),
        "token": token,
        "expires_at": datetime.datetime.now(datetime.UTC) + _FRESH,
    }


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_CREDENTIAL_BYTES)
    try:
        text = content.decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or not text:
        raise InvalidInput(f"{path} holds no credential", field="--s3-credentials")
    return text
