"""Content negotiation: which form of an answer a client wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson
import yaml

from remit import safeyaml
from remit.controlplane.failures import not_acceptable

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
YAML_TYPES = (YAML, "application/x-yaml", "text/yaml")

Shape = Literal["Object", "Table", "Metadata"]


@dataclass(frozen=True)
class Accepted:
    """The form of an answer: the object itself, a Table of it, or its metadata only."""

    shape: Shape = "Object"
    version: str = "v1"
    """The version of meta.k8s.io, for Tables and metadata."""
    yaml: bool = False
    pretty: bool = False

    @property
    def content_type(self) -> str:
        return YAML if self.yaml else JSON

    def dump(self, obj: Any) -> bytes:
        if self.yaml:
            return yaml.dump(obj, Dumper=safeyaml.Dumper).encode()
        return orjson.dumps(obj, option=orjson.OPT_INDENT_2 if self.pretty else None)


def media_types(header: str) -> list[tuple[str, dict[str, str]]]:
    """Accept's clauses, the most wanted first."""
    clauses = []
    for clause in header.split(","):
        media, *rest = (part.strip() for part in clause.split(";"))
        parameters = dict(part.split("=", 1) for part in rest if "=" in part)
        try:
            weight = float(parameters.pop("q", "1"))
        except ValueError:
            weight = 1.0
        clauses.append((-weight, media, parameters))
    clauses.sort(key=lambda clause: clause[0])
    return [(media, parameters) for _, media, parameters in clauses]


_SHAPES: dict[str, Shape] = {
    "Table": "Table",
    "PartialObjectMetadata": "Metadata",
    "PartialObjectMetadataList": "Metadata",
}
_PLAIN = Accepted()


def negotiate(header: str, *, pretty: bool = False) -> Accepted:
    """Raises 406 when nothing the client accepts can be given."""
    if header in ("", "*/*", JSON) and not pretty:
        return _PLAIN
    for media, parameters in media_types(header or JSON):
        in_yaml = media in YAML_TYPES
        if not in_yaml and media not in (JSON, "*/*", "application/*"):
            continue
        wanted = parameters.get("as")
        if wanted is None:
            return Accepted(yaml=in_yaml, pretty=pretty)
        shape = _SHAPES.get(wanted)
        version = parameters.get("v", "v1")
        if shape and parameters.get("g", "meta.k8s.io") == "meta.k8s.io" and version in ("v1", "v1beta1"):
            return Accepted(shape, version, in_yaml, pretty)
    raise not_acceptable((JSON, YAML, PROTOBUF))
