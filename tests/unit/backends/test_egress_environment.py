"""Tests which loopback names a restricted attempt reaches through the proxy, and which are its own."""

from __future__ import annotations

from typing import Any

import pytest

from policies import policy
from remit.backends.egress.listener import proxy_environment
from remit.policy.egress import Egress

LOOPBACK = {"addresses": ["127.0.0.0/8"]}


def rules(*allow: dict[str, Any]) -> Egress:
    return policy(networks=["restricted"], egress={"allow": list(allow)}).egress


@pytest.mark.parametrize(
    ("egress", "own"),
    [
        ([], "localhost,127.0.0.1,::1"),
        ([rules()], "localhost,127.0.0.1,::1"),
        ([rules({"hosts": ["*"]})], "localhost,127.0.0.1,::1"),
        ([rules({"hosts": ["api.test"], **LOOPBACK})], "localhost,127.0.0.1,::1"),
        ([rules({"hosts": ["127.0.0.1"]})], "localhost,::1"),
        ([rules({"hosts": ["localhost"]})], "localhost,127.0.0.1,::1"),
        ([rules({"hosts": ["localhost"], **LOOPBACK})], "127.0.0.1,::1"),
        ([rules({"hosts": ["LOCALHOST."], "addresses": ["::1/128"]})], "127.0.0.1,::1"),
        ([rules({"hosts": ["*"], "addresses": ["127.0.0.0/8", "::1/128"]})], ""),
        (
            [rules({"hosts": ["::1"], "ports": [80]}), rules({"hosts": ["*"], "addresses": ["::1/128"]})],
            "localhost,127.0.0.1,::1",
        ),
        ([rules({"hosts": ["::1"]}), rules({"hosts": ["*"], "addresses": ["::1/128"]})], "localhost,127.0.0.1"),
        ([rules({"hosts": ["127.0.0.1"]}), rules({"hosts": ["*"]})], "localhost,127.0.0.1,::1"),
        # Programs apply a name in NO_PROXY also to all names below it.
        ([rules({"hosts": ["app.localhost"], **LOOPBACK})], "127.0.0.1,::1"),
        ([rules({"hosts": ["*.localhost"], **LOOPBACK})], "127.0.0.1,::1"),
        ([rules({"hosts": ["*.app.localhost"], "addresses": ["::1/128"]})], "127.0.0.1,::1"),
        ([rules({"hosts": ["app.localhost"], **LOOPBACK}), rules({"hosts": ["*"], **LOOPBACK})], "127.0.0.1,::1"),
        ([rules({"hosts": ["app.localhost"]})], "localhost,127.0.0.1,::1"),
        ([rules({"hosts": ["notlocalhost"], **LOOPBACK})], "localhost,127.0.0.1,::1"),
        (
            [rules({"hosts": ["a.localhost"], **LOOPBACK}), rules({"hosts": ["b.localhost"], **LOOPBACK})],
            "localhost,127.0.0.1,::1",
        ),
    ],
)  # fmt: skip
def test_a_name_that_every_policy_lets_through_is_left_to_the_proxy(egress: list[Egress], own: str) -> None:
    environment = proxy_environment(egress)
    assert environment["NO_PROXY"] == environment["no_proxy"] == own
    assert environment["HTTPS_PROXY"] == environment["http_proxy"] == "http://127.0.0.1:3128"
    assert len(environment) == 8
