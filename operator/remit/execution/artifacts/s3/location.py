"""The location of artifacts in object storage, as it is configured and as it is written down. No secrets are in it."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from remit.errors import InvalidInput
from remit.privatefiles import replace_private

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*")
_REGION: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_FILE: Final = "artifact-store.json"


@dataclass(frozen=True, slots=True)
class S3Location:
    """`endpoint`: empty is Amazon's own. `region`: empty is what the environment says, or us-east-1. `ca_file`:
    authorities that are trusted beside the system's. `credentials`: a folder of files; None: what the environment
    has."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    ca_file: Path | None = None
    credentials: Path | None = None

    @property
    def document(self) -> dict[str, str | None]:
        return {name: None if value is None else str(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def of(cls, document: dict[str, Any]) -> S3Location:
        """Raises TypeError, KeyError where it is none."""
        paths = {name: Path(document[name]) if document[name] else None for name in ("ca_file", "credentials")}
        return cls(**document | paths)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def location(url: str, endpoint: str, region: str, ca_file: Path | None, credentials: Path | None) -> S3Location:
    """The location from flags. Raises `InvalidInput`."""
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if scheme != "s3" or not _BUCKET.fullmatch(bucket):
        raise InvalidInput(f"{_shown(url)} is not s3://BUCKET/PREFIX", field="--artifact-store")
    if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise InvalidInput(
            "has a prefix of other characters than letters, digits and !_.*'()-", field="--artifact-store"
        )
    if endpoint:
        parsed = urllib.parse.urlsplit(endpoint)
        if parsed.scheme not in {"http", "https"} or not parsed.hostname or parsed.query or parsed.fragment:
            raise InvalidInput(f"{_shown(endpoint)} is not https://HOST:PORT", field="--s3-endpoint")
        if "@" in parsed.netloc:
            raise InvalidInput("must not hold a user or a password; see --s3-credentials", field="--s3-endpoint")
    if region and not _REGION.fullmatch(region):
        raise InvalidInput("is a name such as eu-central-1", field="--s3-region")
    for path, flag in ((ca_file, "--s3-ca-file"), (credentials, "--s3-credentials")):
        if path is not None and not path.exists():
            raise InvalidInput(f"there is no {path}", field=flag)
    return S3Location(bucket, prefix, endpoint.rstrip("/"), region, _absolute(ca_file), _absolute(credentials))


def write_down(state_dir: Path, where: S3Location | None) -> None:
    """Write it down, so that commands on this host find the operator's store. Raises OSError."""
    path = state_dir / _FILE
    if where is None:
        path.unlink(missing_ok=True)
    else:
        replace_private(path, orjson.dumps(where.document))


def written_down(state_dir: Path) -> S3Location | None:
    """Returns the recorded location. None: the operator that uses the directory, or used it last, keeps artifacts in a
    folder. Raises OSError."""
    try:
        return S3Location.of(orjson.loads((state_dir / _FILE).read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise InvalidInput(f"{state_dir / _FILE} is damaged; remove it, or restart the operator") from None


def _absolute(path: Path | None) -> Path | None:
    return path.absolute() if path is not None else None


def _shown(url: str) -> str:
    """Without what may be a password."""
    return repr(url) if "@" not in url else "what is given"
