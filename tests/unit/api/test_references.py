"""Tests that references of an operation are found at every place."""

from __future__ import annotations

from remit.api.operations import ContainerOperation, FileOperation, HttpOperation, PostgresOperation
from remit.api.references import references


def found(model: object) -> dict[str, str]:
    return {path: f"{type(reference).__name__}:{reference.name}" for path, reference in references(model)}  # type: ignore[arg-type]


def test_a_connection() -> None:
    operation = PostgresOperation.model_validate(
        {"connection": {"name": "db", "key": "url"}, "statements": [{"sql": "select 1"}]}
    )
    assert found(operation) == {"connection": "SecretKeySelector:db"}


def test_in_lists_and_below() -> None:
    http = HttpOperation.model_validate(
        {
            "url": "https://example.com",
            "headers": [
                {"name": "A", "value": "1"},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}}},
            ],
            "caFrom": {"configMapKeyRef": {"name": "ca", "key": "pem"}},
        }
    )
    assert found(http) == {
        "headers[1].valueFrom.secretKeyRef": "SecretKeySelector:token",
        "caFrom.configMapKeyRef": "ConfigMapKeySelector:ca",
    }


def test_content_and_environment() -> None:
    file = FileOperation.model_validate(
        {"operation": "write", "path": "/x", "contentFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
    )
    assert found(file) == {"contentFrom.configMapKeyRef": "ConfigMapKeySelector:c"}
    container = ContainerOperation.model_validate(
        {
            "action": "run",
            "image": "i",
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        }
    )
    assert found(container) == {"env[0].valueFrom.secretKeyRef": "SecretKeySelector:s"}
