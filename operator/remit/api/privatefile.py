"""Private files: content that one task finds in its sandbox, and nobody else anywhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from remit.api.base import Rule, SpecModel, ValueSource

MAX_FILES = 32
PATH_PART = r"([^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]*|\.\.[^/\x00-\x1f\x7f]+)"
"""A name that is neither empty, nor `.`, nor `..`, and has no control character."""


class PrivateFile(SpecModel):
    rules = (
        Rule("!(has(self.value) && has(self.valueFrom))", "set value or valueFrom, not both"),
        Rule("has(self.value) || has(self.valueFrom)", "set value or valueFrom"),
        Rule("self.path != '/run/remit' && !self.path.startsWith('/run/remit/')", "/run/remit is Remit's own"),
    )

    path: Annotated[str, Field(pattern=rf"^/(run|workspace|tmp)(/{PATH_PART})+$", max_length=256)]
    """Where the program finds it: an absolute path below `/run/private`, or elsewhere below `/run`, `/workspace` or
    `/tmp` where the policy's `privateFiles` allow that; without `.`, `..`, `//` and control characters. Mode 0400, the
    program's own."""
    value: Annotated[str, Field(max_length=262144)] | None = None
    """The content as it is."""
    value_from: ValueSource | None = None
    """Where the content comes from, instead of `value`. Of a ConfigMap, `binaryData` counts too."""


NO_FILE_IN_A_FILE = Rule(
    "!has(self.privateFiles) || self.privateFiles.all(a, self.privateFiles.all(b, !b.path.startsWith(a.path + '/')))",
    "privateFiles: one path is a folder of another; a file cannot be both",
)
