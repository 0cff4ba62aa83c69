"""Reads what `remit run` takes from elsewhere: Secrets, and folders of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from remit.errors import InvalidInput


def secrets(words: list[str]) -> list[dict[str, Any]]:
    """`env` for `NAME=SECRET/KEY`. Raises `InvalidInput`."""
    made = []
    for word in words:
        name, _, source = word.partition("=")
        secret, slash, key = source.partition("/")
        if not (name and secret and slash and key):
            raise InvalidInput(f"{word!r} is not NAME=SECRET/KEY, such as PGPASSWORD=db/password", field="--secret")
        made.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return made


def require_same_machine(state_dir: Path | None, server: str) -> None:
    """Paths of this machine mean something only to an operator of this machine, whose state is in `state_dir`. Raises
    `InvalidInput`."""
    if state_dir is None or not state_dir.exists():
        raise InvalidInput(
            f"the operator behind {server} does not run on this machine, so it cannot mount folders of it; use"
            " --workspace, or 'remit up' here",
            field="--mount",
        )
