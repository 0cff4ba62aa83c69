"""Descriptions of model fields, read from the docstrings below the fields.

pydantic's `use_attribute_docstrings` would read these docstrings whenever a model is defined, which is a third of the
import time of the models. Only the generation of the CustomResourceDefinitions needs them, so it reads them here.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from typing import Any

from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema

Schema = dict[str, Any]


class DescribedJsonSchema(GenerateJsonSchema):
    """pydantic's JSON schema of a model, with the fields' docstrings as descriptions."""

    def model_schema(self, schema: Any) -> Schema:
        return _described(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: Any) -> Schema:
        return _described(super().dataclass_schema(schema), schema["cls"])


def _described(generated: Schema, cls: type) -> Schema:
    properties = generated.get("properties", {})
    fields = getattr(cls, "model_fields", {})
    for base in cls.__mro__:
        if base.__module__.startswith("remit."):
            for name, text in _docstrings(base.__module__).get(base.__qualname__, {}).items():
                written = (fields[name].alias if name in fields else None) or to_camel(name)
                if written in properties:
                    properties[written].setdefault("description", text)
    return generated


@functools.cache
def _docstrings(module: str) -> dict[str, dict[str, str]]:
    """Returns the attribute docstrings of a module, by class name and then by attribute name."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {
        definition.name: {
            field.target.id: inspect.cleandoc(below.value.value)
            for field, below in zip(definition.body, definition.body[1:], strict=False)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        }
        for definition in tree.body
        if isinstance(definition, ast.ClassDef)
    }
