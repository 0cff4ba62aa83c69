"""The host's disks, as cgroups name them for bandwidth limits."""

from __future__ import annotations

from pathlib import Path

_NOT_DISKS = ("loop", "ram", "zram")


def disks(folder: Path = Path("/sys/block")) -> tuple[str, ...]:
    """`major:minor` of every whole disk. What lies on others (loop devices, memory) is on one of these in the end."""
    try:
        found = sorted(item for item in folder.iterdir() if not item.name.startswith(_NOT_DISKS))
        return tuple((item / "dev").read_text().strip() for item in found)
    except OSError:
        return ()
