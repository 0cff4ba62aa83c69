"""Tests the label with the leader that created a container."""

from __future__ import annotations

from typing import Any

import pytest

from remit.backends.docker.engine import create
from remit.backends.docker.labels import LEASE_TRANSITIONS
from remit.sandbox import fence


class Client:
    """The client of an engine that creates nothing."""

    created: dict[str, Any]

    def create_container_from_config(self, config: dict[str, Any], name: str) -> dict[str, str]:
        self.created = config
        return {"Id": name}


@pytest.mark.parametrize(("transitions", "labels"), [(None, {"a": "b"}), (7, {"a": "b", LEASE_TRANSITIONS: "7"})])
def test_a_container_tells_under_which_transition_of_the_lease_it_was_created(
    monkeypatch: pytest.MonkeyPatch, transitions: int | None, labels: dict[str, str]
) -> None:
    monkeypatch.setattr(fence, "transitions", transitions)
    client, config = Client(), {"Image": "shop", "Labels": {"a": "b"}}
    assert create(client, "shop", config) == "shop"
    assert client.created == {"Image": "shop", "Labels": labels}
    assert config["Labels"] == {"a": "b"}
