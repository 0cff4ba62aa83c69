from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.api.commandpolicy import PolicyLimits
from remit.api.executiontask import ExecutionTaskSpec
from remit.policy.limits import (
    DEFAULT_TIMEOUT_SECONDS,
    NAMES,
    Bounds,
    Limits,
    asked_for,
    bounds_of,
    contradictions,
    effective,
    excess,
)


def limits(**fields):
    return bounds_of(PolicyLimits.model_validate(fields))


def test_a_policy_limits_everything_that_the_api_knows():
    assert set(NAMES) == set(PolicyLimits.model_fields)


def test_what_a_task_asks_for_in_base_units():
    spec = ExecutionTaskSpec.model_validate(
        {
            "command": {"line": "x"},
            "timeoutSeconds": 9,
            "retry": {"maxRetries": 2},
            "resources": {"cpu": "250m", "memory": "1Ki", "diskBytesPerSecond": "1k", "pids": 4},
        }
    )
    asked = asked_for(spec)
    assert (asked.timeout_seconds, asked.retries, asked.cpu, asked.memory) == (9, 2, 0.25, 1024)
    assert (asked.disk_bytes_per_second, asked.pids, asked.output_bytes) == (1000, 4, 10 * 2**20)
    assert (asked.deadline_seconds, asked.disk) == (None, None)


def test_the_strictest_default_counts():
    given_limits = effective(Limits(), [limits(memory={"default": "1Gi"}), limits(memory={"default": "256Mi"})])
    assert given_limits.memory == 256 * 2**20


def test_a_default_is_cut_to_every_maximum():
    assert effective(Limits(), [limits(cpu={"default": 2}), limits(cpu={"max": "500m"})]).cpu == 0.5


def test_what_is_asked_for_beats_the_default():
    assert effective(Limits(pids=9), [limits(pids={"default": 64, "max": 100})]).pids == 9


def test_what_a_policy_bounds_is_never_unbounded():
    assert effective(Limits(), [limits(pids={"max": 100})]).pids == 100


def test_a_task_always_has_a_timeout():
    assert effective(Limits(), []).timeout_seconds == DEFAULT_TIMEOUT_SECONDS
    assert effective(Limits(), [limits(timeoutSeconds={"max": 60})]).timeout_seconds == 60
    assert effective(Limits(), [limits(timeoutSeconds={"default": 900})]).timeout_seconds == 900


def test_output_is_cut_and_not_refused():
    bounds = limits(outputBytes={"max": "1Mi"})
    asked = Limits(output_bytes=10 * 2**20)
    assert excess(asked, bounds.max) is None
    assert effective(asked, [bounds]).output_bytes == 2**20


def test_a_grace_that_is_too_long_is_cut():
    bounds = limits(terminationGracePeriodSeconds={"max": 30})
    asked = Limits(termination_grace_period_seconds=3600)
    assert excess(asked, bounds.max) is None
    assert effective(asked, [bounds]).termination_grace_period_seconds == 30
    assert effective(Limits(termination_grace_period_seconds=5), [bounds]).termination_grace_period_seconds == 5


@pytest.mark.parametrize(
    ("asked", "maximum", "shown"),
    [
        (Limits(timeout_seconds=7200), {"timeoutSeconds": {"max": 3600}}, ("timeoutSeconds", "7200", "3600")),
        (Limits(memory=2 * 2**30), {"memory": {"max": "512Mi"}}, ("memory", "2Gi", "512Mi")),
        (Limits(cpu=2.5), {"cpu": {"max": "500m"}}, ("cpu", "2.5", "0.5")),
        (Limits(cpu=20.0), {"cpu": {"max": "10"}}, ("cpu", "20", "10")),
        (Limits(network_bytes_per_second=2048), {"networkBytesPerSecond": {"max": 1024}},
         ("networkBytesPerSecond", "2Ki", "1Ki")),
    ],
)  # fmt: skip
def test_an_excess_is_reported_in_the_words_of_the_policy(asked, maximum, shown):
    over = excess(asked, limits(**maximum).max)
    assert over is not None
    assert (over.name, over.asked, over.max) == shown


def test_exactly_the_maximum_is_fine():
    assert excess(Limits(cpu=0.1, memory=10), limits(cpu={"max": "100m"}, memory={"max": 10}).max) is None


def test_a_default_above_its_maximum():
    assert contradictions(limits(memory={"default": "2Gi", "max": "1Gi"}, pids={"default": 1, "max": 1})) == ["memory"]


amounts = st.none() | st.integers(0, 50)
bounds = st.builds(lambda default, most: Bounds(Limits(pids=default), Limits(pids=most)), amounts, amounts)


@given(amounts, st.lists(bounds, max_size=4))
def test_nothing_is_ever_above_a_maximum_and_bounds_only_tighten(asked, all_bounds):
    given_limit = effective(Limits(pids=asked), all_bounds).pids
    for bound in all_bounds:
        if bound.max.pids is not None:
            assert given_limit is not None
            assert given_limit <= bound.max.pids
    fewer = effective(Limits(pids=asked), all_bounds[:-1]).pids
    assert fewer is None or (given_limit is not None and given_limit <= fewer)


def test_quantities_are_rounded_up_to_whole_bytes():
    assert limits(memory={"max": "0.5"}).max.memory == 1
    assert Decimal("0.5") == Decimal(str(limits(cpu={"max": "500m"}).max.cpu))
