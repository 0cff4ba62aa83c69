"""Private files: files that exist only in the sandbox of one task."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from remit.api.base import Rule, SpecModel, ValueSource

MAX_FILES = 32
PATH_PART = r"([^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.\.[^/\x00-\x1f\x7f]+)"
"""A regular expression for a path component: not empty, not `.` or `..`, and without control characters."""


class PrivateFile(SpecModel):
    rules = (
        Rule("!(has(self.value) && has(self.valueFrom))", "set value or valueFrom, not both"),
        Rule("has(self.value) || has(self.valueFrom)", "set value or valueFrom"),
        Rule("self.path != '/run/remit' && !self.path.startsWith('/run/remit/')", "/run/remit is Remit's own"),
    )

    path: Annotated[str, Field(pattern=rf"^/(run|workspace|tmp)(/{PATH_PART})+$", max_length=256)]
    """The file's absolute path, without `.`, `..`, `//` and control characters. It is below `/run/private`, or
    elsewhere below `/run`, `/workspace` or `/tmp` if a policy's `privateFiles` allow it. The program's user owns the
    file, and its mode is 0400."""
    value: Annotated[str, Field(max_length=262144)] | None = None
    """The literal content."""
    value_from: ValueSource | None = None
    """The source of the content, instead of `value`. A key of a ConfigMap may also be in its `binaryData`."""


NO_FILE_IN_A_FILE = Rule(
    "!has(self.privateFiles) || self.privateFiles.all(a, self.privateFiles.all(b, !b.path.startsWith(a.path + '/')))",
    "privateFiles: one path is a folder of another; a file cannot be both",
)
