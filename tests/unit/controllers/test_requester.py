"""Tests the requester: what the API server recorded, if it can be trusted; otherwise the client's own name."""

from __future__ import annotations

from typing import Any

import pytest

from remit.controllers.requester import Requester

STAMPED = {"annotations": {"remit.dev/requested-by": "alice"}}
MANAGED = {
    "managedFields": [
        {"manager": "later", "time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:spec": {}}},
        {"manager": "kubectl-create", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {}}},
        {"manager": "remit", "time": "2025-01-01T00:00:00Z", "fieldsV1": {"f:status": {}}},
    ]
}


@pytest.mark.parametrize(
    ("requester", "metadata", "who"),
    [
        (Requester(trusted=True), STAMPED | MANAGED, "user:alice"),
        (Requester(trusted=True), MANAGED, "manager:kubectl-create"),
        (Requester(), STAMPED | MANAGED, "manager:kubectl-create"),
        (Requester(only_user="remit-admin"), STAMPED | MANAGED, "user:remit-admin"),
        (Requester(), {}, ""),
        (Requester(trusted=True), {"annotations": None}, ""),
        (Requester(), {"managedFields": None}, ""),
        (Requester(), {"managedFields": [{"fieldsV1": None}]}, ""),
        (Requester(), {"managedFields": [{"fieldsV1": {"f:spec": {}}}]}, ""),
    ],
)
def test_who(requester: Requester, metadata: dict[str, Any], who: str) -> None:
    assert requester({"metadata": metadata}) == who
