"""Rules about paths, ready to be asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from remit.api.commandpolicy import FileRule, HostPathRule
from remit.api.volumes import Access
from remit.policy.argv import takes_a_detour
from remit.policy.globs import Overlaps
from remit.policy.patterns import Pattern, path_glob


@dataclass(frozen=True)
class PathRule:
    """A rule about paths by its name in the policy, such as `files.allow[0]`."""

    name: str
    globs: tuple[tuple[str, Pattern], ...]

    def matches(self, path: str) -> bool:
        return any(pattern.matches(path) for _, pattern in self.globs)

    def root(self, path: str) -> str:
        """The directory before the first wildcard of the glob that matches `path`: no link may lead out of it."""
        return _root(next(glob for glob, pattern in self.globs if pattern.matches(path)))

    def overlaps(self, overlaps: Overlaps) -> bool:
        """Whether a task's glob can match what a glob of the rule matches."""
        return any(overlaps.with_(glob) for glob, _ in self.globs)

    def root_above(self, path: str, overlaps: Overlaps) -> str:
        """The same for the folder `path` of a task's glob; that folder itself where it is above the directory."""
        root = _root(next(glob for glob, _ in self.globs if overlaps.with_(glob)))
        return root if f"{path}/".startswith(f"{root.rstrip('/')}/") else path

    def covers(self, path: str) -> bool:
        """Whether all that is below the folder `path` is meant."""
        return any(glob.endswith("/**") and pattern.matches(path) for glob, pattern in self.globs)


def folder_glob(text: str) -> Pattern:
    """Compile as `path_glob` does, and refuse a glob that no normalized path can match. Raises `ValueError`."""
    if text != "/" and takes_a_detour(text):
        raise ValueError(f"{text!r} takes a detour; write it without '..', '.', '//' or a final '/'")
    return path_glob(text)


def _root(glob: str) -> str:
    fixed = re.split(r"[*?]", glob, maxsplit=1)[0]
    return fixed.rpartition("/")[0] or "/"


@dataclass(frozen=True)
class CompiledFileRule(PathRule):
    operations: tuple[str, ...]
    owners: tuple[str, ...]


@dataclass(frozen=True)
class CompiledHostPathRule(PathRule):
    access: frozenset[Access]
    run_as_user: int | None


def compile_file_rules(
    name: str, rules: Sequence[FileRule], report: Callable[[str, str], None]
) -> Iterator[CompiledFileRule]:
    """The rules of `name`, such as `files.allow`; a mistake is reported with its field and leaves the rule out."""
    for index, rule in enumerate(rules):
        if globs := _globs(f"spec.{name}[{index}].paths", rule.paths, report):
            yield CompiledFileRule(f"{name}[{index}]", globs, tuple(rule.operations), tuple(rule.owners))


def compile_host_path_rules(
    rules: Sequence[HostPathRule], report: Callable[[str, str], None]
) -> Iterator[CompiledHostPathRule]:
    """The rules of `volumes.hostPaths`, as `compile_file_rules` does it."""
    for index, rule in enumerate(rules):
        name = f"volumes.hostPaths[{index}]"
        if globs := _globs(f"spec.{name}.paths", rule.paths, report):
            yield CompiledHostPathRule(name, globs, frozenset(rule.access), rule.run_as_user)


def _globs(
    field: str, paths: Sequence[str], report: Callable[[str, str], None]
) -> tuple[tuple[str, Pattern], ...] | None:
    """None where one of them is wrong, which is reported."""
    globs: list[tuple[str, Pattern]] = []
    for number, text in enumerate(paths):
        where = f"{field}[{number}]"
        try:
            globs.append((text, folder_glob(text)))
        except ValueError as error:
            report(where, str(error))
    return tuple(globs) if len(globs) == len(paths) else None
