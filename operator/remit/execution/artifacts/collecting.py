"""Keeps the artifacts and reads the results of an attempt, once nothing of it is alive."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from remit.api.quantity import format_bytes
from remit.backends.filetree import Collector, FileTree, TooMuch
from remit.backends.outcome import ExitReason, KeptArtifact, Outcome
from remit.execution.artifacts.store import ArtifactStore, Contents, StoreUnavailable, TooLarge
from remit.execution.artifacts.stored import StoredArtifact, StoredFile
from remit.telemetry.logs import escape

MAX_FILES: Final = 50_000
"""Limit of all artifacts of one attempt."""
MAX_PATH_BYTES: Final = 1024
"""Limit of a path in an artifact, because all paths of an attempt are in memory at once."""
MAX_RESULT_BYTES: Final = 4096
_NOT_RUN: Final = frozenset({ExitReason.START_FAILED, ExitReason.SANDBOX_UNAVAILABLE, ExitReason.DENIED})


@dataclass(frozen=True, slots=True)
class WantedArtifact:
    """`pattern` is absolute, in the program's view. `always`: also of an attempt that failed."""

    name: str
    pattern: str
    most_bytes: int
    always: bool = False
    optional: bool = False
    retain_seconds: int = 0


@dataclass(frozen=True, slots=True)
class WantedResult:
    name: str
    path: str
    optional: bool = False


class _NotKept(Exception):
    """The reason why an artifact is not kept, or a result cannot be read."""

    def __init__(self, reason: ExitReason, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.reason, self.retryable = reason, retryable


def collector(
    store: ArtifactStore,
    save: Callable[[Sequence[StoredArtifact]], None],
    artifacts: Sequence[WantedArtifact],
    results: Sequence[WantedResult],
) -> Collector:
    """`save` records what is kept. An attempt that succeeded and left something that cannot be kept has failed; one
    that had failed keeps its own reason, and nothing is kept of it then."""

    def collect(tree: FileTree, outcome: Outcome) -> Outcome:
        if outcome.reason in _NOT_RUN:
            return outcome
        succeeded = outcome.reason == ExitReason.COMPLETED
        kept: list[StoredArtifact] = []
        try:
            with store.collecting() as contents:
                for wanted in artifacts:
                    if succeeded or wanted.always:
                        room = MAX_FILES - sum(len(each.files) for each in kept)
                        kept += _kept(contents, tree, wanted, required=succeeded, room=room)
                texts = {
                    result.name: text for result in results if (text := _read(tree, result, succeeded)) is not None
                }
                if kept:
                    contents.sync()
                    save(kept)
        except (_NotKept, OSError) as error:
            return _failed(outcome, error)
        told = tuple(KeptArtifact(each.name, len(each.files), each.bytes, each.digest) for each in kept)
        return dataclasses.replace(outcome, artifacts=told, results=texts)

    return collect


def _kept(
    contents: Contents, tree: FileTree, wanted: WantedArtifact, *, required: bool, room: int
) -> list[StoredArtifact]:
    """The artifact with its contents in the store, at most `room` files; none where it may be missing, and is."""
    where = f"artifact {wanted.name} ({escape(wanted.pattern)})"
    files: list[StoredFile] = []
    left = wanted.most_bytes
    too_large = _NotKept(
        ExitReason.ARTIFACT_TOO_LARGE,
        f"{where} has more than its maxBytes, {format_bytes(wanted.most_bytes)}; raise that, or keep less",
        retryable=False,
    )
    for found in tree.find(wanted.pattern):
        if len(files) == room:
            raise _NotKept(
                ExitReason.ARTIFACT_TOO_LARGE,
                f"{where}: an attempt leaves at most {MAX_FILES} files in all its artifacts; pack them into an archive",
                retryable=False,
            )
        _check_name(where, found.path)
        if found.size > left:  # a sparse file that is too large is not even read
            raise too_large
        try:
            with found.open() as source:
                stored = contents.put(found.path, source, executable=found.executable, most=left)
        except TooLarge:  # the file grew since its size was read
            raise too_large from None
        files.append(stored)
        left -= stored.size
    if not files:
        if wanted.optional or not required:
            return []
        raise _NotKept(
            ExitReason.ARTIFACT_MISSING,
            f"{where}: no file is there; have the program make it, correct path, or set optional",
            retryable=True,
        )
    files.sort(key=lambda file: file.path)
    return [StoredArtifact(wanted.name, tuple(files), wanted.retain_seconds)]


def _check_name(where: str, path: str) -> None:
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        shown = escape(path.encode(errors="surrogateescape").decode(errors="backslashreplace"))
        message = f"{where} has a file whose name is not UTF-8, {shown}; rename it"
        raise _NotKept(ExitReason.ARTIFACT_UNREADABLE, message, retryable=False) from None
    if length > MAX_PATH_BYTES:
        message = f"{where} has a file whose path has {length} bytes, and at most {MAX_PATH_BYTES} are kept; shorten it"
        raise _NotKept(ExitReason.ARTIFACT_TOO_LARGE, message, retryable=False)


def _read(tree: FileTree, wanted: WantedResult, required: bool) -> str | None:
    where = f"result {wanted.name} ({escape(wanted.path)})"
    for found in tree.find(wanted.path):
        with found.open() as source:
            content = source.read(MAX_RESULT_BYTES + 1)
        if len(content) > MAX_RESULT_BYTES:
            message = f"{where} has more than {MAX_RESULT_BYTES} bytes; keep it as an artifact"
            raise _NotKept(ExitReason.ARTIFACT_TOO_LARGE, message, retryable=False)
        try:
            return content.decode().removesuffix("\n")
        except UnicodeDecodeError:
            message = f"{where} is not UTF-8 text; keep it as an artifact"
            raise _NotKept(ExitReason.ARTIFACT_UNREADABLE, message, retryable=False) from None
    if wanted.optional or not required:
        return None
    message = f"{where}: the file is not there; have the program write it, correct path, or set optional"
    raise _NotKept(ExitReason.ARTIFACT_MISSING, message, retryable=True)


def _failed(outcome: Outcome, error: _NotKept | OSError) -> Outcome:
    if isinstance(error, TooMuch):
        error = _NotKept(ExitReason.ARTIFACT_TOO_LARGE, escape(str(error.strerror)), retryable=False)
    elif isinstance(error, StoreUnavailable):
        error = _NotKept(ExitReason.ARTIFACT_NOT_STORED, f"what it left was not stored: {error}", retryable=True)
    elif isinstance(error, OSError):
        message = f"what it left could not be kept: {escape(error.strerror or str(error))}"
        error = _NotKept(ExitReason.ARTIFACT_UNREADABLE, message, retryable=True)
    if outcome.reason != ExitReason.COMPLETED:
        return dataclasses.replace(outcome, message=f"{outcome.message}; {error}")
    return dataclasses.replace(
        outcome, reason=error.reason, message=f"completed, but {error}", category="Artifacts", retryable=error.retryable
    )
