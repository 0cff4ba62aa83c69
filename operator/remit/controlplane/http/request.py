"""A parsed request: which resource, which verb, which options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from remit.controlplane.failures import bad_request, invalid, quoted

_FALSE = {"0", "f", "F", "false", "FALSE", "False"}
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_LONGEST_INTEGER = 30
"""Digits; Python takes long to read thousands of them, and refuses more than 4,300."""


@dataclass(frozen=True)
class ResourcePath:
    """A path under /api or /apis, taken apart. `resource` is the plural; empty strings stand for absent parts."""

    group: str
    version: str
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse_path(path: str) -> ResourcePath | None:
    """None when the path is not one of a resource: discovery, health, or nonsense."""
    parts = path.removeprefix("/").removesuffix("/").split("/")
    match parts:
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return None
    namespace = ""
    own_subresource = group == "" and len(rest) == 3 and rest[2] in ("status", "finalize")
    if rest[0] == "namespaces" and len(rest) > 2 and not own_subresource:
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3 or not rest[0]:
        return None
    name = rest[1] if len(rest) > 1 else ""
    return ResourcePath(group, version, rest[0], namespace, name, rest[2] if len(rest) > 2 else "")


@dataclass
class ApiRequest:
    """The input of a verb: everything of the HTTP request that can matter."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    """Filled once it is read."""
    warnings: list[str] = field(default_factory=list)
    """Filled while the request is served; they go out as Warning headers, on refusals too."""

    @cached_property
    def resource_path(self) -> ResourcePath | None:
        return parse_path(self.path)

    def text(self, name: str, default: str = "") -> str:
        return self.query.get(name, default)

    def flag(self, name: str) -> bool:
        value = self.query.get(name)
        return value is not None and value not in _FALSE

    def number(self, name: str) -> int | None:
        """A 64-bit integer. Raises 400."""
        value = self.query.get(name)
        if not value:
            return None
        if not _INTEGER.fullmatch(value):
            raise bad_request(f"strconv.ParseInt: parsing {quoted(value)}: invalid syntax")
        if len(value) > _LONGEST_INTEGER or not -(1 << 63) <= (number := int(value)) < 1 << 63:
            raise bad_request(f"strconv.ParseInt: parsing {quoted(value)}: value out of range")
        return number

    @property
    def dry_run(self) -> bool:
        """Raises 422 for a mode that is not known."""
        mode = self.query.get("dryRun")
        if mode and mode != "All":
            options = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions"}
            why = f'Unsupported value: ["{mode}"]: supported values: "All"'
            causes = [("FieldValueNotSupported", why, "dryRun")]
            raise invalid("meta.k8s.io", options.get(self.method, "DeleteOptions"), "", causes)
        return bool(mode)

    @property
    def manager(self) -> str:
        """The field manager: named, or the program's name from User-Agent."""
        return self.query.get("fieldManager") or self.headers.get("User-Agent", "").split("/")[0][:128] or "unknown"
