"""Paths of the host that no policy can open. Without models, because supervisors of processes need it, too."""

from __future__ import annotations

from typing import Final

FORBIDDEN: Final = ("/proc", "/sys", "/dev", "/run", "/var/run")
"""Trees of the host that are never mounted: the kernel's, and the sockets of engines and of the system."""
