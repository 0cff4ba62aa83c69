"""Why a program is not there for a sandbox, as far as this host shows, and what would make it available."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from remit.sandbox.filesystem import readable_paths

_BELOW_HOME: Final = (
    ".local/bin", ".cargo/bin", ".pyenv/shims", ".pyenv/versions/*/bin", ".nvm/versions/node/*/bin", ".volta/bin",
    ".bun/bin", ".deno/bin", ".rbenv/shims", ".asdf/shims", ".sdkman/candidates/*/current/bin", "go/bin", "bin",
)  # fmt: skip
_ELSEWHERE: Final = ("/opt/*/bin", "/opt/bin", "/usr/local/*/bin", "/snap/bin", "/home/linuxbrew/.linuxbrew/bin")


def explain_absence(program: str, read_only_paths: Sequence[str] = ()) -> str:
    """Explain where `program`, a name or an absolute path, is on this host although sandboxes do not find it there, and
    how they would; empty where it is nowhere that programs usually are.

    `read_only_paths` are the folders that sandboxes see besides the system's.
    """
    found = next((path for path in _candidates(program) if _is_program(path)), None)
    if found is None:
        return ""
    hidden = [path for path in _needed(found) if not is_visible(path, read_only_paths)]
    if not hidden:
        return f"it is {found}: write that path, which a policy has to allow" if str(found) != program else ""
    needed = dict.fromkeys(map(_installation, hidden))
    folders = [str(one) for one in needed if not any(one != other and one.is_relative_to(other) for other in needed)]
    options = " ".join(f"--read-only-path {folder}" for folder in folders)
    where = "it is there on this host" if str(found) == program else f"this host has {found}"
    then = "" if str(found) == program else ", and write that path in the task and in the policy"
    them = "that" if len(folders) == 1 else "each"
    return (
        f"{where}, but sandboxes do not see {' and '.join(folders)}: mount {them} at its own path (a hostPath in"
        f" spec.volumes, which a policy's volumes.hostPaths allows), or start Remit with {options}{then}"
    )


def is_visible(path: Path, read_only_paths: Iterable[str] = ()) -> bool:
    """Whether sandboxes see the folder that `path` is in."""
    return any(path.is_relative_to(folder) for folder in (*readable_paths(), *read_only_paths))


def _candidates(program: str) -> Iterator[Path]:
    if "/" in program:
        yield Path(os.path.normpath(program)) if program.startswith("/") else Path("/nonexistent")
        return
    # Shims last, because they start another program.
    for folder in sorted(_folders(), key=lambda folder: folder.name == "shims"):
        yield folder / program


def _folders() -> Iterator[Path]:
    """Folders besides the system's in which programs usually are, beginning with the operator's own PATH."""
    yield from (Path(entry) for entry in os.environ.get("PATH", "").split(":") if entry.startswith("/"))
    if environment := os.environ.get("VIRTUAL_ENV"):
        yield Path(environment) / "bin"
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  # as it is where there is none
    for top, patterns in ((home, _BELOW_HOME), (Path("/"), [pattern[1:] for pattern in _ELSEWHERE])):
        for pattern in patterns:
            # In descending order of names, so that the newest version usually comes first.
            yield from sorted(top.glob(pattern), reverse=True)


def _is_program(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except (OSError, ValueError):  # not a valid file name
        return False


def _needed(found: Path) -> list[Path]:
    """The folder in which it is named, and that in which the links end: the interpreter of a virtual environment is
    elsewhere."""
    return [found, Path(os.path.realpath(found))]


def _installation(path: Path) -> Path:
    """The folder that a program needs with it: what is beside `bin`, unless that is a home or the root."""
    folder = path.parent
    if folder.name not in {"bin", "shims"} or folder.parent in {Path("/"), Path(os.path.expanduser("~"))}:  # noqa: PTH111
        return folder
    return folder.parent
