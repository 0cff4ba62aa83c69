"""How a process makes cgroups, limits them and gets into them. The fork server's children use it too, so it imports the
standard library only.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # every fork would copy an imported typing module
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def join_cgroups(folders: Iterable[str], file: str) -> None:
    """Move this process into each of the cgroups, by its `file` ("cgroup.procs", or "tasks" on v1)."""
    write_files([(f"{folder}/{file}", "0", False) for folder in folders])


def enter_cgroups(folders: Sequence[str], file: str) -> None:
    """Make the cgroups, and move this process into them."""
    for folder in folders:
        os.mkdir(folder)  # noqa: PTH102  # pathlib would be copied by every fork
    join_cgroups(folders, file)


def write_files(values: Iterable[tuple[str, str, bool]]) -> None:
    """Write each value to the file of that path, which may be missing if the third says so. Raises OSError."""
    for path, value, optional in values:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if optional:
                continue
            raise
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
