from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remit.api.executiontask import Backoff
from remit.execution.lifecycle import retry_delay


def test_waits_double_up_to_the_cap() -> None:
    backoff = Backoff(initial_seconds=1, factor=2, max_seconds=10, jitter=0)
    assert [retry_delay(backoff, retries, 0.5) for retries in range(6)] == [1, 2, 4, 8, 10, 10]


@given(
    retries=st.integers(0, 10_000),
    draw=st.floats(0, 1),
    factor=st.floats(1, 10),
    jitter=st.floats(0, 1),
)
def test_jitter_stays_within_its_bounds(retries: int, draw: float, factor: float, jitter: float) -> None:
    backoff = Backoff(initial_seconds=1, factor=factor, max_seconds=60, jitter=jitter)
    exact = retry_delay(backoff.model_copy(update={"jitter": 0.0}), retries, draw)
    wait = retry_delay(backoff, retries, draw)
    assert exact * (1 - jitter) - 1e-6 <= wait <= exact * (1 + jitter) + 1e-6
    assert 0 <= wait <= 120 + 1e-6
