import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.api.commandpolicy import Rate
from remit.policy import Bucket, RateClaim, RateSpec, concurrency_reached, take, take_all


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


def test_all_or_none():
    slow, fast = RateClaim("ns/slow", RateSpec(1, 1)), RateClaim("ns/fast", RateSpec(600, 10))
    buckets, wait = take_all({}, [slow, fast], 0)
    assert (wait, buckets["ns/slow"].tokens, buckets["ns/fast"].tokens) == (0, 0, 9)
    buckets, wait = take_all(buckets, [slow, fast], 30)
    assert wait == pytest.approx(30)
    assert buckets["ns/fast"].tokens == 10
    assert take_all({}, [], 0) == ({}, 0.0)


def test_as_many_as_may_run_at_once():
    claims = [RateClaim("a", RateSpec(per_minute=1)), RateClaim("b", RateSpec(max_concurrent=2))]
    assert concurrency_reached({"a": 100, "b": 1}, claims) is None
    assert concurrency_reached({"b": 2}, claims) == claims[1]


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
def test_who_waits_as_told_gets_a_token(per_minute, burst):
    spec, now = RateSpec(per_minute, burst), 1_700_000_000.0
    bucket, wait = take(Bucket(0, now), spec, now)
    assert take(bucket, spec, now + wait + 1e-6)[1] == 0
