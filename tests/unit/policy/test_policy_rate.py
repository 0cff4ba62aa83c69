import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.api.commandpolicy import Rate
from remit.policy.rate import Bucket, RateSpec, give_back, replay, take


def test_a_burst_then_the_steady_rate():
    spec, bucket = RateSpec(per_minute=60, burst=2), None
    bucket, wait = take(bucket, spec, 100.0)
    assert wait == 0
    bucket, wait = take(bucket, spec, 100.0)
    assert wait == 0
    bucket, wait = take(bucket, spec, 100.0)
    assert wait == pytest.approx(1.0)
    bucket, wait = take(bucket, spec, 100.4)
    assert wait == pytest.approx(0.6)
    bucket, wait = take(bucket, spec, 101.0)
    assert wait == 0


def test_a_quiet_time_fills_no_more_than_the_burst():
    bucket, _ = take(Bucket(0, 0), RateSpec(per_minute=60, burst=3), 1_000_000)
    assert bucket.tokens == 2


def test_a_clock_that_went_back():
    spec = RateSpec(per_minute=60, burst=1)
    bucket, wait = take(Bucket(0, 1000), spec, 10)
    assert (bucket, wait) == (Bucket(0, 10), 1.0)
    assert take(bucket, spec, 11)[1] == 0


def test_a_lowered_burst_takes_tokens_away():
    assert take(Bucket(100, 0), RateSpec(per_minute=60, burst=2), 0)[0].tokens == 1


def test_no_rate_never_waits():
    assert take(None, RateSpec(max_concurrent=1), 0)[1] == 0


def test_a_token_that_was_not_used_comes_back():
    spec = RateSpec(per_minute=60, burst=2)
    taken, _ = take(None, spec, 0)
    assert give_back(taken, spec) == Bucket(2, 0)
    assert give_back(Bucket(2, 0), spec) == Bucket(2, 0)
    assert give_back(Bucket(0, 0), RateSpec(max_concurrent=1)) == Bucket(0, 0)


def test_the_starts_on_record_leave_the_same_bucket_behind():
    spec = RateSpec(per_minute=2, burst=2)
    assert replay([130.0, 100.0], spec, 131.0).tokens == pytest.approx(1 + 1 / 30)
    assert replay([], spec, 5.0) == Bucket(2, 5.0)
    assert replay([9000.0, 9000.0], spec, 5.0) == Bucket(0, 5.0)  # by a clock that was ahead


def test_a_rate_as_written():
    assert RateSpec.of(Rate()) is None
    assert RateSpec.of(Rate(per_minute=5)) == RateSpec(5, 5, None)
    assert RateSpec.of(Rate(max_concurrent=3)) == RateSpec(None, None, 3)


@given(st.integers(1, 600), st.integers(1, 20), st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_never_more_than_the_burst_and_the_rate_together(per_minute, burst, gaps):
    spec, bucket, now, starts = RateSpec(per_minute, burst), None, 0.0, 0
    for gap in gaps:
        now += gap
        bucket, wait = take(bucket, spec, now)
        starts += wait == 0
        assert wait >= 0
    assert starts <= burst + now * per_minute / 60 + 1e-6


@given(st.integers(1, 600), st.integers(1, 5))
def test_a_task_that_waits_as_announced_gets_a_token(per_minute, burst):
    spec, now = RateSpec(per_minute, burst), 1_700_000_000.0
    bucket, wait = take(Bucket(0, now), spec, now)
    assert take(bucket, spec, now + wait + 1e-6)[1] == 0


@given(st.integers(1, 600), st.integers(1, 20), st.lists(st.floats(0, 5), max_size=60))
def test_a_replay_knows_what_the_bucket_knew(per_minute, burst, gaps):
    spec, bucket, now, starts = RateSpec(per_minute, burst), None, 0.0, []
    for gap in gaps:
        now += gap
        bucket, wait = take(bucket, spec, now)
        starts += [now] * (wait == 0)
    assert replay(starts, spec, now).tokens == pytest.approx(bucket.tokens if bucket else burst, abs=1e-6)
