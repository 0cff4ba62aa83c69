"""Types of the Python API: the limits of an execution, and its result."""

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
    """Resource limits of one execution. The policy's default applies to a limit that is not set; a limit above the
    policy's maximum is refused.

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
        """Returns the limits as a manifest's `spec.resources`."""
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
    """Files of an execution that are kept. `files` are their paths in the artifact."""

    name: str
    digest: str
    bytes: int
    files: tuple[str, ...]
    _save: Callable[[Path], list[Path]] = field(repr=False, compare=False)

    def save(self, path: Path | str) -> list[Path]:
        """Copies the files to `path` like `cp -r`. A single file is written to `path`, or into `path` if that is a
        folder; several files are written below `path`. Returns the paths that were written. Raises OSError if a file
        cannot be written or the artifact is no longer kept."""
        return self._save(Path(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """The result of an execution. If there were several attempts, it describes the last one.

    `stdout` and `stderr` are valid text with secrets redacted. They contain the whole output up to the agent's
    `output_cap` for each stream; of a longer stream they contain the end, and `truncated` is set. `output_ref` is the
    folder with all output that is kept.
    """

    task_id: str
    exit_code: int | None
    """The program's exit code, or 128 plus the signal's number if a signal ended it. None if nothing was executed."""
    stdout: str = ""
    stderr: str = ""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    truncated: bool = False
    """Whether `stdout` or `stderr` lacks the beginning of the output."""
    redactions: int = 0
    """Number of secrets in the output that `[redacted]` replaced."""
    duration: float = 0.0
    """Time from the start of the first attempt to the end, including backoff, in seconds."""
    attempts: int = 0
    reason: str = ""
    """How the execution ended, as one stable CamelCase word: Completed, ExitCode, Signal, OOMKilled, Timeout,
    Cancelled …"""
    message: str = ""
    usage: UsageStatus | None = None
    layers: tuple[str, ...] = ()
    """The confinement that was in force."""
    policy: str = ""
    rule: str = ""
    output_ref: str = ""
    artifacts: Mapping[str, ResultArtifact] = field(default_factory=dict)
    """The artifacts of the execution, by name."""
    results: Mapping[str, str] = field(default_factory=dict)
    """Small texts that the execution left, by name (`spec.results`)."""
    status: ExecutionTaskStatus = field(repr=False, default_factory=ExecutionTaskStatus)
    """The whole status, as an API server would return it. It contains only the end of the output."""

    @property
    def success(self) -> bool:
        return self.reason == "Completed"


def _bytes(mebibytes: float | None) -> str | None:
    return None if mebibytes is None else str(math.ceil(mebibytes * 1024**2))
