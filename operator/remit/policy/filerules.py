"""Rules about paths, ready to be asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from remit.api.commandpolicy import FileRule
from remit.policy.argv import takes_a_detour
from remit.policy.globs import Overlaps
from remit.policy.patterns import BadPattern, Pattern, path_glob


@dataclass(frozen=True)
class CompiledFileRule:
    """A rule by its name in the policy, such as `files.allow[0]`."""

    name: str
    globs: tuple[tuple[str, Pattern], ...]
    operations: tuple[str, ...]
    owners: tuple[str, ...]

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


def _root(glob: str) -> str:
    fixed = re.split(r"[*?]", glob, maxsplit=1)[0]
    return fixed.rpartition("/")[0] or "/"


def compile_file_rules(
    name: str, rules: Sequence[FileRule], report: Callable[[str, str], None]
) -> Iterator[CompiledFileRule]:
    """The rules of `name`, such as `files.allow`; a mistake is reported with its field and leaves the rule out."""
    for index, rule in enumerate(rules):
        globs: list[tuple[str, Pattern]] = []
        for number, text in enumerate(rule.paths):
            where = f"spec.{name}[{index}].paths[{number}]"
            if takes_a_detour(text):
                report(where, f"{text!r} takes a detour; write it without '..', '.', '//' or a final '/'")
                continue
            try:
                globs.append((text, path_glob(text)))
            except BadPattern as error:
                report(where, str(error))
        if len(globs) == len(rule.paths):
            yield CompiledFileRule(f"{name}[{index}]", tuple(globs), tuple(rule.operations), tuple(rule.owners))
