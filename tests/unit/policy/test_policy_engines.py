"""Tests addresses of engines in releases and policies: the host by label or address range, user and port separately."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import policy
from remit.policy.engines import BadEngine, EngineAddress, EnginePattern
from remit.policy.request import ReleasePlace
from remit.policy.rules import releases

EVIL = "10.0.0.1.evil.invalid"


@pytest.mark.parametrize(
    ("pattern", "address", "matches"),
    [
        ("ssh://deploy@10.0.0.*", "ssh://deploy@10.0.0.5", True),
        ("ssh://deploy@10.0.0.*", f"ssh://deploy@{EVIL}", False),
        ("ssh://deploy@10.0.0.*", "ssh://deploy@10.0.0.5:22", True),
        ("ssh://deploy@10.0.0.*", "ssh://deploy@10.0.0.5:2222", False),
        ("ssh://deploy@10.0.0.*", "ssh://root@10.0.0.5", False),
        ("ssh://deploy@10.0.0.*", "ssh://10.0.0.5", False),
        ("ssh://deploy@10.0.*.*", "ssh://deploy@10.0.9.5", True),
        ("ssh://deploy@10.0.0.0/24", "ssh://deploy@10.0.0.5/", True),
        ("ssh://deploy@10.0.0.0/24", "ssh://deploy@10.0.1.5", False),
        ("ssh://deploy@10.0.0.0/24", f"ssh://deploy@{EVIL}", False),
        ("ssh://deploy@10.0.0.0/24:2222", "ssh://deploy@10.0.0.5:2222", True),
        ("ssh://deploy@10.0.0.0/24:*", "ssh://deploy@10.0.0.5:2222", True),
        ("ssh://deploy@[2001:db8::/32]", "ssh://deploy@[2001:db8::1]:22", True),
        ("ssh://deploy@[2001:db8::1]", "ssh://deploy@[2001:DB8:0::1]", True),
        ("ssh://deploy@[2001:db8::/32]", "ssh://deploy@[2001:db9::1]", False),
        ("ssh://*.build.example", "ssh://a.build.example", True),
        ("ssh://*.build.example", "ssh://A.B.Build.example", True),
        ("ssh://*.build.example", "ssh://build.example", False),
        ("ssh://*.build.example", "ssh://evil.invalid", False),
        ("ssh://*.build.example", "ssh://a.build.example.evil.invalid", False),
        ("ssh://build", "ssh://build.evil.invalid", False),
        ("ssh://*@build", "ssh://root@build", True),
        ("ssh://*@build", "ssh://build", True),
        ("ssh://ci-*@build", "ssh://ci-7@build", True),
        ("ssh://ci-*@build", "ssh://root@build", False),
        ("tcp://build", "tcp://build:2376", True),
        ("tcp://build", "ssh://build:2376", False),
        ("unix:///run/user/*/docker.sock", "unix:///run/user/1000/docker.sock", True),
        ("unix:///run/user/*/docker.sock", "unix:///run/user/1000/x/docker.sock", False),
        ("unix:///run/**", "unix:///run/user/1000/docker.sock", True),
        ("unix:///run/**", "unix:///run/../tmp/evil.sock", False),
        ("*", "ssh://root@anywhere:1", True),
        ("*", "unix:///tmp/docker.sock", True),
    ],
)
def test_which_engine_a_pattern_is_about(pattern: str, address: str, matches: bool) -> None:
    own = policy(releases={"engines": [pattern]})
    assert own.ready, own.problems
    assert (releases.judge(own, ReleasePlace(engine=address)) is None) is matches


@pytest.mark.parametrize(
    "pattern",
    ["ssh://deploy@10.0.0.1*", "ssh://10.0.0.*.evil.invalid", "ssh://build*", "ssh://a.*.example", "unix://*", "docker",
     "unix:///run/../x", "http://build", "ssh://build:port", "ssh://a:b@build", "ssh://10.0.0.1/8", "ssh://build/24",
     "ssh://300.0.0.*", "tcp://root@build", "ssh://"],
)  # fmt: skip
def test_an_invalid_pattern_makes_its_policy_not_ready(pattern: str) -> None:
    own = policy(releases={"engines": ["unix:///ok.sock", pattern]})
    assert [problem.field for problem in own.problems] == ["spec.releases.engines[1]"]


@pytest.mark.parametrize(
    "address",
    ["ssh://0x7f.1", "ssh://127.1", "ssh://build.", "ssh://a:secret@build", "ssh://build/x", "ssh://build?x", "ssh://",
     "ssh://-oProxyCommand=x", "ssh://-l@build", "ssh://a;b@build", "ssh://build:0", "ssh://build:99999", "ssh://a b",
     "ssh://build\n", "ssh://build\\x", "tcp://root@build", "unix://relative", "unix:///a/../b", "unix:///a//b",
     "npipe:x"],
)  # fmt: skip
def test_an_invalid_address(address: str) -> None:
    with pytest.raises(BadEngine) as caught:
        EngineAddress.parse(address)
    assert "secret" not in str(caught.value)
    own = policy(releases={"engines": ["*"]})
    denied = releases.judge(own, ReleasePlace(engine=address))
    assert denied is not None
    assert "target.docker.host" in denied.message


@given(st.text(st.sampled_from("abc019.*-_:/@[]?x"), max_size=16), st.sampled_from(["ssh://", "tcp://", "unix:///"]))
def test_an_address_is_a_pattern_of_itself_alone(text: str, scheme: str) -> None:
    try:
        address = EngineAddress.parse(scheme + text)
        pattern = EnginePattern.parse(scheme + text)
    except BadEngine:
        return
    assert pattern.matches(address)
    if address.host:
        with contextlib.suppress(BadEngine):
            assert not pattern.matches(EngineAddress.parse(f"{scheme}{text}.evil.invalid"))
