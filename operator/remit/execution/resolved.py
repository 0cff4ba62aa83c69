"""The ConfigMaps, Secrets and artifacts that a task refers to, once they were read. Kept in memory only, and never
shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from remit.execution.artifacts.stored import StoredArtifact


@dataclass(slots=True)
class Resolved:
    """The environment; the private files by their path; the values of the operation's own references by their path in
    it (`connection`, `headers[0].valueFrom.secretKeyRef`); and what among all these is secret. Bytes that are no text
    are in `secrets` with surrogates for them (`surrogateescape`)."""

    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    stdin: bytes | None = None
    """What `stdinFrom` refers to; None: it is not set, or not there."""
    folders: dict[str, str] = field(default_factory=dict)
    """The folder on this host of each workspace, artifact and release among the volumes, by the volume's name."""
    artifacts: dict[str, StoredArtifact] = field(default_factory=dict)
    """What each artifact among the volumes is, by the volume's name."""
    values: dict[str, bytes] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    secret_versions: dict[str, str] = field(default_factory=dict)
    """The uid and resourceVersion of each Secret that was read, by name."""
    exposed: list[str] = field(default_factory=list)
    """What was given a secret too short to be redacted, such as `env PIN`."""

    def __repr__(self) -> str:
        return f"Resolved({', '.join((*self.env, *self.files, *self.values))})"  # only names, no values
