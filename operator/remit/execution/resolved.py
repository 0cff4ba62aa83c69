"""What a task refers to, once it was read. Kept nowhere but in memory, and never shown."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Resolved:
    """The environment; the values of the operation's own references by their path in it (`connection`,
    `headers[0].valueFrom.secretKeyRef`); and the texts among all these that are secret."""

    env: dict[str, str] = field(default_factory=dict)
    values: dict[str, bytes] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)

    def __repr__(self) -> str:
        return f"Resolved({', '.join((*self.env, *self.values))})"  # names only
