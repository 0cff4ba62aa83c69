"""The chain of audit records: what one line looks like, and how it hangs on the line before.

A line is `{"seq": …, "time": …, "kind": …, …, "prev": …, "hash": …}`. `hash` is the SHA-256 of the line's own bytes up
to the comma before `"hash"`, so an edit, a gap or another order is found without any canonical form. The chain shows
that lines belong together, not that the end is there: keep a copy of the head (`Anchor`) elsewhere to see a cut tail.
A file that continues another one starts with the other's head as its `prev`.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import orjson

from remit.telemetry.redact import Redactor

_HASH_FIELD: Final = b',"hash":"'
_HASH_END: Final = b'"}'
MAX_ARGV: Final = 16384
"""Characters of an argv that are kept; of a longer one the beginning, and a digest of all of it."""
MAX_TEXT: Final = 4096
"""Characters of any other text."""
_SAID: Final = frozenset({"what", "argv", "executable", "resolved", "message", "network", "asks"})
"""Where words of users can stand, and so a secret. All else is names and words of Remit's own: a secret that is spelled
like one of them must not take it out of the record."""


class Anchor(NamedTuple):
    """A place in the chain: the number and the hash of a record."""

    seq: int
    hash: str

    def __str__(self) -> str:
        """`SEQ:HASH`, as `remit audit verify` prints and takes it."""
        return f"{self.seq}:{self.hash}"


Kind = Literal["decision", "execution", "release", "recovery", "segment", "retention"]
GENESIS: Final = Anchor(0, "0" * 64)
"""Before the first record."""


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """A decision, or one step of an execution. What is not known stays unset and is left out of the line."""

    kind: Kind
    namespace: str = ""
    task: str = ""
    uid: str = ""
    who: str = ""
    """The user or service account that asked."""
    attempt: str = ""
    operation: str = ""
    """The operation, such as `command` or `http`."""
    what: str = ""
    """What an operation other than a command asked for, such as `read of /srv/report`."""
    argv: Sequence[str] = ()
    asks: Mapping[str, Any] = field(default_factory=dict)
    """What else rules look at, in a decision on a task: `network`, and `labels`, `environment` (names), `image` and the
    like, as far as there are any."""
    executable: str = ""
    """The executable as it was written."""
    resolved: str = ""
    """The absolute path that ran or would have run."""
    policy: str = ""
    rule: str = ""
    verdict: str = ""
    """Allowed or Denied; for an execution, Started or how it ended."""
    reason: str = ""
    category: str = ""
    """The kind of failure, as in `status.error.category`; empty for what succeeded."""
    message: str = ""
    audited: Sequence[Mapping[str, str]] = ()
    """What policies in Audit enforcement would have denied: `policy`, `rule`, `reason` and `message` of each denial."""
    backend: str = ""
    node: str = ""
    """The host, or the node of the cluster, that the operator works on."""
    layers: Sequence[str] = ()
    """What confined it."""
    exit_code: int | None = None
    exceeded: Sequence[str] = ()
    """Limits that it met, such as `Memory`."""
    usage: Mapping[str, float] = field(default_factory=dict)
    network: Sequence[Mapping[str, str | int]] = ()
    """For a restricted network, each destination with its connections, refusals and bytes."""
    output: str = ""
    """`raw` where what is kept of the output is not redacted."""
    output_digest: str = ""
    """`sha256:` and the digest of everything that was written to standard output and error."""
    follows: str = ""
    """The name of the file that a `segment` continues."""
    removed: Sequence[str] = ()
    """In a `retention`: the closed files that go, the oldest first, each as `NAME SEQ:HASH` of its last record."""

    def as_record(self) -> dict[str, Any]:
        """The fields that are set, by name."""
        return {name: value for name, value in vars(self).items() if value not in ("", None, (), [], {})}


def timestamp(moment: datetime.datetime) -> str:
    """The timestamp of records: UTC, of fixed length, so that texts compare as times do. `moment` needs a zone."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_line(line: bytes) -> tuple[dict[str, Any], bool]:
    """A record and whether its hash is right. Raises `ValueError` when it is no record at all."""
    record = orjson.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("seq"), int):
        raise ValueError("not an audit record")  # noqa: TRY004  (as orjson does)
    body, found, rest = line.rpartition(_HASH_FIELD)
    return record, bool(found) and rest == hashlib.sha256(body).hexdigest().encode() + _HASH_END


def encode(event: AuditEvent, head: Anchor, now: datetime.datetime, redactor: Redactor) -> tuple[bytes, Anchor]:
    """The line that follows `head`, newline included, and its place in the chain."""
    record = {
        "seq": head.seq + 1,
        "time": timestamp(now),
        "kind": event.kind,
        **_bounded(_scrubbed(event, redactor)),
        "prev": head.hash,
    }
    body = orjson.dumps(record)[:-1]
    digest = hashlib.sha256(body).hexdigest()
    return body + _HASH_FIELD + digest.encode() + _HASH_END + b"\n", Anchor(head.seq + 1, digest)


def _scrubbed(event: AuditEvent, redactor: Redactor) -> dict[str, Any]:
    """The fields that are set, except the kind, without secrets."""

    def scrub(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: _encodable(redactor.scrub(value, event.namespace) if name in _SAID else value)
            for name, value in fields.items()
        }

    record = event.as_record()
    del record["kind"]
    if "audited" in record:
        record["audited"] = [scrub(denial) for denial in record["audited"]]
    return scrub(record)


def _bounded(record: dict[str, Any]) -> dict[str, Any]:
    """Nobody can fill the trail with one request. Bounded after redaction, so that no secret is cut out of its mask."""
    bounded: dict[str, Any] = {}
    for name, value in record.items():
        if name == "argv" and sum(map(len, value)) + len(value) > MAX_ARGV:
            whole = orjson.dumps(value)
            bounded |= {"argv": _beginning(value), "argv_digest": f"sha256:{hashlib.sha256(whole).hexdigest()}"}
        elif name == "audited":
            bounded[name] = [_bounded(denial) for denial in value]
        else:
            bounded[name] = value[:MAX_TEXT] + "…" if isinstance(value, str) and len(value) > MAX_TEXT else value
    return bounded


def _beginning(argv: list[str]) -> list[str]:
    kept: list[str] = []
    left = MAX_ARGV
    for argument in argv:
        kept.append(argument[:left])
        left -= len(argument) + 1
        if left <= 0:
            break
    return [*kept, "…"]


def _encodable(value: Any) -> Any:
    """Arguments may be any bytes; what is not Unicode is written as an escape."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return {key: _encodable(item) for key, item in value.items()} if isinstance(value, dict) else value
