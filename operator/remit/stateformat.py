"""Which format a state directory has, so that a version that does not know it leaves it alone.

The number stands for all that an operator keeps there: runs, artifacts, the audit trail, releases, processes. The
database of the embedded control plane has its own. A directory without a number is of the first format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from remit.errors import InvalidInput
from remit.privatefiles import read_private, replace_private

STATE_FORMAT: Final = 1
_FILE: Final = "format"


def check_state_format(state_dir: Path) -> None:
    """Note the format of a directory that has none yet.

    Raises:
        InvalidInput: this version does not know its format, or the note is damaged. Nothing in it was touched.
        OSError: it cannot be read or written.
    """
    path = state_dir / _FILE
    try:
        noted = read_private(path)
    except FileNotFoundError:
        replace_private(path, b"%d\n" % STATE_FORMAT)
        return
    if not noted.strip().isdigit():
        raise InvalidInput(f"{path} holds no number; restore the directory from a backup, or write the number it had")
    written = int(noted[:9])
    if written > STATE_FORMAT:
        raise InvalidInput(
            f"{state_dir} has format {written}, and this version of Remit reads {STATE_FORMAT} at most; use the "
            "version that wrote it or a later one, or restore a backup that was made before the upgrade"
        )
