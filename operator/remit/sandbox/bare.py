"""Start a run without namespaces: Landlock, seccomp, rlimits and a supervisor, for pods that allow nothing more.

There are no mounts, so nothing is where a run in namespaces finds it: `/workspace`, `/tmp` and `/run` are folders below
the operator's TMPDIR. Words of the command and values of variables that are exactly one of these, or exactly a private
file's path, are given as where it really is; so are the working directory, HOME and TMPDIR.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from remit.errors import InvalidInput
from remit.sandbox.cgroup import AttemptCgroup
from remit.sandbox.filesystem import readable_paths
from remit.sandbox.forkserver import Supervise
from remit.sandbox.identity import slots
from remit.sandbox.landlock import EVERYTHING, EXECUTE, WRITE
from remit.sandbox.launch import check
from remit.sandbox.memory import sealed_memory
from remit.sandbox.model import Bare
from remit.sandbox.rlimits import RESOURCES
from remit.sandbox.scratch import remove, scratch

_ROOTS = {"/workspace": "workspace", "/tmp": "tmp", "/run": "run"}  # noqa: S108  # as runs in namespaces name them
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")
_SOURCES = ("/dev/random", "/dev/urandom")


class BareLaunch:
    """Give its `job` to the fork server, and once it has started `release`. `close` removes the private folder."""

    def __init__(
        self,
        bare: Bare,
        *,
        executable: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        files: Mapping[str, bytes],
        working_dir: str,
        read_only_paths: Sequence[str],
        rlimits: Mapping[str, int],
        system_call_filter: bytes | None,
        landlock_scopes: int,
    ) -> None:
        """`rlimits` as `remit.sandbox.rlimits` gives them, the last two as a plan has them.

        Raises InvalidInput for a NUL byte or for a file outside /workspace, /tmp and /run; OSError where there is no
        room for a folder.
        """
        check(executable, argv, env, files, working_dir)
        if elsewhere := next(
            (path for path in files if not path.startswith(tuple(f"{root}/" for root in _ROOTS))), None
        ):
            raise InvalidInput(f"{elsewhere!r}: without namespaces, files go under {', '.join(_ROOTS)}", field="files")
        self._descriptors: set[int] = set()
        self.uid = bare.identities.uid(next(slots)) if bare.identities else None
        """The user that it becomes; None: it stays the operator's."""
        self._groups = bare.identities.groups if bare.identities else ()
        self.folder = Path(tempfile.mkdtemp(dir=scratch()))
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._make(files)
            self._executable = executable
            names = {*_ROOTS, *files}
            self._argv = [argv[0], *(self._real(word) if word in names else word for word in argv[1:])]
            variables = {name: self._real(value) if value in names else value for name, value in env.items()}
            self._working_dir = self._real(working_dir)
            self._environment = self._holding(marshal.dumps(variables))
            self._go_read, self._go = self._pipe()
            self._scopes = landlock_scopes
            self._grants = self._allowed(read_only_paths)
            self._limits = {RESOURCES[name]: value for name, value in rlimits.items()}
            self._filter = system_call_filter
            undo.pop_all()

    def job(self, stdio: tuple[int, int, int], cgroup: AttemptCgroup | None) -> Supervise:
        """The command, confined from before its first instruction."""
        become = [("become", self.uid, self.uid, *self._groups)] if self.uid is not None else []
        joining = [cgroup.joining()] if cgroup else []
        return Supervise(
            self._executable,
            self._argv,
            stdio,
            self._environment,
            self._go_read,
            self._working_dir,
            self._scopes,
            [
                *joining,
                *become,
                ("limit", self._limits),
                ("shed_capabilities",),
                ("no_new_privileges",),
                ("enclose", self._scopes, self._grants),
            ],
            [("filter_calls", self._filter)] if self._filter is not None else [],
        )

    def begun(self) -> None:
        """Leave the descriptors to the process: then it hears it when this one dies."""
        for descriptor in (self._environment, self._go_read):
            self._close(descriptor)

    def release(self) -> None:
        """Let the command go."""
        with contextlib.suppress(BrokenPipeError):  # the process has ended, and its exit status says why
            os.write(self._go, b"1")
        self._close(self._go)

    def call_off(self) -> None:
        """End the process, unless it was released already."""
        self._close(self._go)

    def close(self) -> None:
        """Only when everything that ran is dead. Raises OutcomeUnknown where the folder cannot be removed."""
        for descriptor in tuple(self._descriptors):
            self._close(descriptor)
        remove(self.folder)

    def _make(self, files: Mapping[str, bytes]) -> None:
        """The private folders, and the files in them, all of the attempt's user alone."""
        made = [self.folder, *(self.folder / name for name in _ROOTS.values())]
        for folder in made[1:]:
            folder.mkdir(mode=0o700)
        for path, content in files.items():
            file = Path(self._real(path))
            made += _folders(file.parent, self.folder)
            file.write_bytes(content)
            file.chmod(0o400)
            made.append(file)
        if self.uid is not None:
            for each in made:
                os.chown(each, self.uid, self.uid, follow_symlinks=False)

    def _real(self, path: str) -> str:
        """The host path for a path inside namespaces. `check` ensures that none leads outside."""
        for root, name in _ROOTS.items():
            if path == root or path.startswith(f"{root}/"):
                return f"{self.folder}/{name}{path.removeprefix(root)}"
        return path

    def _allowed(self, read_only_paths: Iterable[str]) -> list[tuple[str, int]]:
        return [
            *((path, EXECUTE) for path in (*readable_paths(), *_SOURCES, *read_only_paths)),
            *((path, WRITE) for path in _DEVICES),
            *((f"{self.folder}/{name}", EVERYTHING) for name in ("workspace", "tmp")),
            (f"{self.folder}/run", EXECUTE),
        ]

    def _holding(self, content: bytes) -> int:
        descriptor = sealed_memory(content)
        self._descriptors.add(descriptor)
        return descriptor

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self._descriptors.update(ends)
        return ends

    def _close(self, descriptor: int) -> None:
        if descriptor in self._descriptors:
            self._descriptors.discard(descriptor)
            os.close(descriptor)


def _folders(folder: Path, top: Path) -> list[Path]:
    """Make `folder` below `top`, and name what was made."""
    missing = [each for each in (folder, *folder.parents) if each.is_relative_to(top) and not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return missing
