"""Tests counting network traffic across operators."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from remit.backends.egress.usage import DestinationUse, NetworkUse, UsageCounter
from remit.backends.egress.usagestore import UsageStore
from remit.policy.hosts import Destination

USED = NetworkUse(
    3, 2, 10, 20, "no", (DestinationUse("a.test:443", 3, 0, 10, 20), DestinationUse("(malformed)", 0, 2, 0, 0))
)


def test_what_is_written_is_read_again_by_the_operator_alone(tmp_path: Path) -> None:
    usage_store = UsageStore(tmp_path / "new" / "egress")
    assert usage_store.read("one") is None
    usage_store.write("one", USED)
    assert UsageStore(tmp_path / "new" / "egress").read("one") == USED
    (kept,) = (tmp_path / "new" / "egress").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    usage_store.forget("one")
    usage_store.forget("one")
    assert usage_store.read("one") is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"destinations": [{}]}', b'{"destinations": [], "x": 1}']
)
def test_what_cannot_be_read_counts_for_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one.json").write_bytes(content)
    assert UsageStore(tmp_path).read("one") is None


def test_a_ledger_carries_on() -> None:
    counter = UsageCounter.carried_on(USED)
    assert counter.use == USED
    counter.connected(Destination.parse("a.test:443", None)).sent_bytes += 5
    assert not counter.denied(None, "again")
    assert counter.use.destinations == (
        DestinationUse("a.test:443", 4, 0, 15, 20),
        DestinationUse("(malformed)", 0, 3, 0, 0),
    )
    assert counter.use.last_denied == "again"
