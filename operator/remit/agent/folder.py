"""The state folder of one agent: numbered, locked while in use, used again by the next one.

<root>/agent-0/   audit/audit.jsonl   runs/   lock
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from remit.errors import InvalidInput, ResourceError
from remit.privatefiles import open_private, private_directory
from remit.stateformat import check_state_format

_MOST = 1024


def default_root() -> Path:
    """The folder in which agents keep their state, according to XDG. Raises ResourceError for a user without a home
    directory."""
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    except RuntimeError:
        raise ResourceError("this user has no home directory; name a folder by `state_dir`") from None
    return state / "remit" / "agents"


class Folder:
    """The first folder below `root` that nobody else holds. Several processes may look for one at once."""

    def __init__(self, root: Path) -> None:
        try:
            private_directory(root)
            for number in range(_MOST):
                path = root / f"agent-{number}"
                private_directory(path)
                lock = open_private(path / "lock")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(lock)
                    continue
                try:
                    check_state_format(path)
                except BaseException:
                    os.close(lock)
                    raise
                self.path, self._lock = path, lock
                return
        except InvalidInput as error:
            raise ResourceError(f"the state folder cannot be used: {error}") from None
        except OSError as error:
            raise ResourceError(
                f"the state folder {root} cannot be used: {error.strerror}; give another state_dir"
            ) from error
        raise ResourceError(f"{_MOST} agents use {root}; close some, or give another state_dir")

    def release(self) -> None:
        os.close(self._lock)
