"""Tests the bandwidth limit without a clock."""

from hypothesis import given
from hypothesis import strategies as st

from remit.backends.egress.pacing import Pace


def test_no_rate_never_waits() -> None:
    assert Pace().reserve(10**12, now=5.0) == 0.0
    assert Pace().chunk == 65536


def test_what_is_taken_is_waited_for() -> None:
    pace = Pace(1000)
    assert pace.reserve(500, now=10.0) == 0.5
    assert pace.reserve(500, now=10.0) == 1.0  # after what another connection reserved
    assert pace.reserve(500, now=20.0) == 0.5  # unused bandwidth is not saved up


def test_little_is_not_waited_for_until_it_adds_up() -> None:
    pace = Pace(1000)
    assert pace.reserve(40, now=0.0) == 0.0
    assert pace.reserve(40, now=0.0) == 0.08


@given(st.integers(1, 10**9), st.lists(st.integers(1, 65536), min_size=1, max_size=200))
def test_no_transfer_is_faster_than_the_rate(rate: int, chunks: list[int]) -> None:
    pace, now = Pace(rate), 0.0
    for chunk in chunks:
        now += pace.reserve(chunk, now)
    assert sum(chunks) <= rate * (now + 0.051)


@given(st.integers(1, 10**9))
def test_a_chunk_is_a_tenth_of_a_second_at_most(rate: int) -> None:
    assert 1 <= Pace(rate).chunk <= max(1, min(65536, rate // 10))
