"""Paths inside a sandbox that users write, policies judge and sandboxes make."""

from __future__ import annotations

from typing import Final

WORKSPACE: Final = "/workspace"
"""The private folder that a program starts in unless a task says otherwise."""
OWN_FILES: Final = "/run/remit"
"""What Remit itself puts there: scripts, input, the program that a container starts with."""
