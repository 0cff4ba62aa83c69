"""What the Python API takes and gives: the limits of one execution, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from remit.api.executiontask import Resources
from remit.api.executiontaskstatus import ExecutionTaskStatus, UsageStatus
from remit.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLimits:
    """The most that one execution may use. What is not set is the policy's default; more than its maximum is refused.

    `*_mb` are mebibytes. `disk_mb` is the size of each private disk (`/workspace` and `/tmp`); `cpu_cores` may be a
    fraction, such as 0.5.

        ResourceLimits(memory_mb=100, cpu_cores=0.5, pids=16)
    """

    memory_mb: float | None = None
    cpu_cores: float | None = None
    pids: int | None = None
    disk_mb: float | None = None
    file_size_mb: float | None = None
    open_files: int | None = None

    def __post_init__(self) -> None:
        for name in type(self).__slots__:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidInput(f"must be a number above 0, not {value!r}", field=f"ResourceLimits.{name}")

    def as_resources(self) -> Resources:
        """In the words of a manifest's `spec.resources`."""
        words = {
            "memory": _bytes(self.memory_mb),
            "cpu": None if self.cpu_cores is None else f"{math.ceil(self.cpu_cores * 1000)}m",
            "pids": self.pids,
            "disk": _bytes(self.disk_mb),
            "file_size": _bytes(self.file_size_mb),
            "open_files": self.open_files,
        }
        return Resources.model_validate({name: value for name, value in words.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultArtifact:
    """Files that an execution left and that are kept. `files` are their paths in it."""

    name: str
    digest: str
    bytes: int
    files: tuple[str, ...]
    _save: Callable[[Path], list[Path]] = field(repr=False, compare=False)

    def save(self, path: Path | str) -> list[Path]:
        """Copy them to `path` as `cp -r` would: one file becomes `path`, or lies in it where that is a folder; several
        lie below it. Gives what was written. Raises OSError, also when they are not kept any more."""
        return self._save(Path(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """How an execution ended; of several attempts, the last.

    `stdout` and `stderr` are valid text with secrets redacted: all of it up to the agent's `output_cap` for each, or
    else its end, and then `truncated` is set. `output_ref` is the folder with all that is kept.
    """

    task_id: str
    exit_code: int | None
    """128 + signal where a signal ended it; None where nothing was executed."""
    stdout: str = ""
    stderr: str = ""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    truncated: bool = False
    """Whether `stdout` or `stderr` lacks the beginning of what was said."""
    redactions: int = 0
    """How many times `[redacted]` took the place of a secret in what was said."""
    duration: float = 0.0
    """Seconds from the first attempt's start to the end, backoff included."""
    attempts: int = 0
    reason: str = ""
    """One stable CamelCase word: Completed, ExitCode, Signal, OOMKilled, Timeout, Cancelled …"""
    message: str = ""
    usage: UsageStatus | None = None
    layers: tuple[str, ...] = ()
    """The confinement that was in force."""
    policy: str = ""
    rule: str = ""
    output_ref: str = ""
    artifacts: Mapping[str, ResultArtifact] = field(default_factory=dict)
    """What is kept of the files that it made, by name."""
    results: Mapping[str, str] = field(default_factory=dict)
    """Small texts that it left, by name (`spec.results`)."""
    status: ExecutionTaskStatus = field(repr=False, default_factory=ExecutionTaskStatus)
    """All of it, as an API server would show it; of output it has the last bytes only."""

    @property
    def success(self) -> bool:
        return self.reason == "Completed"


def _bytes(mebibytes: float | None) -> str | None:
    return None if mebibytes is None else str(math.ceil(mebibytes * 1024**2))
