"""Tests the order of the queue, without a clock and without an operator."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.execution.queue import Queue, WaitReason
from remit.policy.rate import RateClaim, RateSpec
from support import repetitions


class Hall:
    """A queue, and the tasks that were admitted."""

    def __init__(self, capacity=1, memory=None):
        self.called: list[tuple[str, float]] = []
        self.queue = Queue(capacity, wake=lambda key, seconds: self.called.append((key, seconds)), memory=memory)

    def enter(self, key, *claims, now=0.0, since=0.0, memory=0):
        return self.queue.enter(key, key.split("/")[0], claims, since=since, now=now, memory=memory)

    def let_in(self):
        called, self.called = self.called, []
        return [key for key, seconds in called if seconds == 0]


def one(name, most):
    return RateClaim(name, RateSpec(max_concurrent=most))


def rate(name, per_minute, burst=1):
    return RateClaim(name, RateSpec(per_minute, burst))


def test_first_come_first_served_in_a_namespace():
    hall = Hall()
    assert hall.enter("a/0") is None
    places = [hall.enter(f"a/{n}") for n in range(1, 4)]
    assert [(place.position, place.waiting) for place in places] == [(1, 1), (2, 2), (3, 3)]
    assert places[0].blocked.reason is WaitReason.OPERATOR
    for n in range(3):
        hall.queue.leave(f"a/{n}", 0)
        assert hall.let_in() == [f"a/{n + 1}"]
        assert hall.enter(f"a/{n + 1}") is None


def test_a_flood_delays_another_namespace_by_one_turn():
    hall = Hall()
    for n in range(1000):
        hall.enter(f"flood/{n}")
    hall.enter("calm/0")
    order, running = [], "flood/0"
    for _ in range(3):
        hall.queue.leave(running, 0)
        (running,) = hall.let_in()
        order.append(running)
    assert "calm/0" in order[:2]


def test_who_waits_longest_goes_first_whoever_asks_first():
    hall = Hall()
    hall.enter("a/0")
    hall.enter("a/late", since=9)
    assert hall.enter("a/early", since=1).position == 1
    hall.queue.leave("a/0", 10)
    assert hall.let_in() == ["a/early"]


def test_a_blocked_task_holds_up_nobody_else():
    hall = Hall(capacity=2)
    hall.enter("a/0", one("p", 1))
    blocked = hall.enter("a/1", one("p", 1)).blocked
    assert (blocked.reason, blocked.policy, blocked.limit) == (WaitReason.CONCURRENCY, "p", 1)
    assert hall.enter("a/2") is None
    hall.queue.leave("a/0", 0)
    assert hall.let_in() == ["a/1"]


def test_memory_is_promised_once():
    hall = Hall(capacity=9, memory=100)
    assert hall.enter("a/0", memory=60) is None
    blocked = hall.enter("a/1", memory=41).blocked
    assert (blocked.reason, blocked.limit, blocked.seconds) == (WaitReason.MEMORY, 100, None)
    assert hall.queue.waiting(WaitReason.MEMORY, 0) == 1
    assert hall.enter("b/0") is None, "what takes no memory goes first"
    hall.queue.leave("a/0", 0)
    assert hall.let_in() == ["a/1"]
    assert hall.enter("b/1", memory=59) is None
    assert hall.enter("b/2", memory=1).blocked.reason is WaitReason.MEMORY


def test_a_large_task_is_not_overtaken_by_small_ones_for_ever():
    hall = Hall(capacity=9, memory=100)
    assert hall.enter("a/0", memory=50) is None
    assert hall.enter("b/large", memory=100).blocked.reason is WaitReason.MEMORY
    assert hall.enter("a/small", memory=10).blocked.reason is WaitReason.MEMORY
    hall.queue.leave("a/0", 0)
    assert hall.let_in() == ["b/large"]
    hall.queue.leave("b/large", 0)
    assert hall.let_in() == ["a/small"]


def test_memory_stays_kept_when_its_namespace_starts_something_else():
    hall = Hall(capacity=9, memory=100)
    for n in range(2):
        assert hall.enter(f"b/{n}", memory=50) is None
    assert hall.enter("a/large", memory=100).blocked.reason is WaitReason.MEMORY
    for n in range(2, 5):
        hall.enter(f"b/{n}", memory=50)
    for n in range(2):
        hall.queue.leave(f"b/{n}", 0)
        assert hall.enter(f"a/free-{n}") is None
    assert hall.let_in() == ["a/large"]
    hall.queue.leave("a/large", 0)
    assert hall.let_in() == ["b/2", "b/3"]


def test_memory_is_no_longer_kept_for_whom_a_policy_holds_up_since():
    hall = Hall(capacity=9, memory=100)
    assert hall.enter("a/0", memory=60) is None
    assert hall.enter("b/large", one("p", 1), memory=80).blocked.reason is WaitReason.MEMORY
    assert hall.enter("c/0", memory=40).blocked.reason is WaitReason.MEMORY
    assert hall.enter("c/1", one("p", 1)) is None
    assert hall.let_in() == ["c/0"]


def test_no_memory_is_kept_for_whom_a_policy_holds_up():
    hall = Hall(capacity=9, memory=100)
    assert hall.enter("a/0", one("p", 1), memory=50) is None
    assert hall.enter("a/1", one("p", 1), memory=100).blocked.reason is WaitReason.CONCURRENCY
    assert hall.enter("b/0", memory=50) is None


def test_a_changed_need_of_memory_is_a_new_one():
    hall = Hall(capacity=9, memory=100)
    assert hall.enter("a/0", memory=90) is None
    assert hall.enter("a/0", memory=20) is None
    assert hall.enter("a/1", memory=80) is None
    assert hall.enter("a/2", memory=30).blocked.reason is WaitReason.MEMORY
    hall.queue.leave("a/1", 0)
    assert hall.let_in() == ["a/2"]


def test_who_needs_more_than_all_of_it_runs_alone():
    hall = Hall(capacity=9, memory=100)
    assert hall.enter("a/0", memory=1000) is None
    assert hall.enter("a/1", memory=1).blocked.reason is WaitReason.MEMORY
    hall.queue.leave("a/0", 0)
    assert hall.let_in() == ["a/1"]


def test_without_a_bound_no_memory_is_counted():
    hall = Hall(capacity=9)
    assert [hall.enter(f"a/{n}", memory=1 << 60) for n in range(9)] == [None] * 9


def test_a_rate_calls_the_first_when_its_token_comes():
    hall = Hall(capacity=9)
    assert hall.enter("a/0", rate("p", 60)) is None
    place = hall.enter("a/1", rate("p", 60))
    assert place.blocked.reason is WaitReason.RATE
    assert hall.called[-1] == ("a/1", pytest.approx(1.0))
    hall.enter("a/2", rate("p", 60))
    assert hall.queue.waiting(WaitReason.RATE, 0) == len(hall.queue) == 2
    assert hall.enter("a/1", rate("p", 60), now=1.0) is None
    assert hall.called[-1] == ("a/2", pytest.approx(1.0))


def test_a_ceilings_rate_is_each_namespaces_own_and_its_places_are_shared():
    hall = Hall(capacity=9)
    assert hall.enter("a/0", rate("ceiling", 1)) is None
    assert hall.enter("b/0", rate("ceiling", 1)) is None
    assert hall.enter("a/1", one("all", 1)) is None
    assert hall.enter("b/1", one("all", 1)).blocked.policy == "all"


def test_a_token_that_was_not_used_goes_to_the_next():
    hall = Hall(capacity=9)
    hall.enter("a/0", rate("p", 1))
    hall.enter("a/1", rate("p", 1))
    hall.queue.leave("a/0", 0)
    assert hall.let_in() == ["a/1"]
    hall.queue.started("a/1")
    hall.queue.leave("a/1", 0)
    assert hall.enter("a/2", rate("p", 1)).blocked.seconds == pytest.approx(60)


def test_asking_again_takes_nothing_again():
    hall = Hall(capacity=9)
    assert hall.enter("a/0", rate("p", 1, 2)) is None
    assert hall.enter("a/0", rate("p", 1, 2)) is None
    assert hall.enter("a/1", rate("p", 1, 2)) is None


def test_other_claims_are_another_lane():
    hall = Hall(capacity=9)
    hall.enter("a/0", one("p", 1))
    hall.enter("a/1", one("p", 1))
    assert hall.enter("a/1", one("p", 2)) is None  # the policy was edited
    assert hall.enter("a/1", one("q", 1)) is None
    hall.queue.leave("nobody", 0)


def test_what_is_on_record_counts():
    hall = Hall(capacity=2)
    claims = (one("p", 1), rate("r", 2, 2))
    hall.queue.restore({"a/0": ("a", claims)}, [("a", claims, 90.0), ("a", claims, 99.0)], 100.0)
    assert hall.enter("a/1", one("p", 1), now=100.0).blocked.policy == "p"
    assert hall.enter("a/2", rate("r", 2, 2), now=100.0).blocked.reason is WaitReason.RATE
    assert hall.enter("b/0", rate("r", 2, 2), now=100.0) is None
    assert hall.enter("b/1", now=100.0).blocked.reason is WaitReason.OPERATOR


POLICIES = {"free": (), "one": (one("one", 1),), "two": (one("two", 2),), "slow": (rate("slow", 60, 2),)}
moves = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(sorted(POLICIES)), st.integers(0, 3)), min_size=1, max_size=80
)


@settings(max_examples=repetitions(40, soak=2000), deadline=None)
@given(st.integers(1, 4), moves)
def test_capacities_hold_nobody_starves_and_no_place_stays_free(capacity, arrivals):
    hall, now, inside, waiting = Hall(capacity), 0.0, [], []

    def settle():
        for key in hall.let_in():
            waiting.remove(key)
            inside.append(key)
            hall.queue.started(key)
            order[key.split("/")[0], key.split("/")[1]].append(int(key.split("/")[2]))
        assert len(inside) <= capacity
        running = Counter(key.split("/")[1] for key in inside)
        assert running["one"] <= 1
        assert running["two"] <= 2
        assert not (len(inside) < capacity and any(key.split("/")[1] == "free" for key in waiting))
        assert not (len(inside) < capacity and running["one"] < 1 and any("/one/" in key for key in waiting))

    order = {(namespace, policy): [] for namespace in "abc" for policy in POLICIES}
    for number, (namespace, policy, ends) in enumerate(arrivals):
        key = f"{namespace}/{policy}/{number}"
        if hall.enter(key, *POLICIES[policy], now=now) is None:
            inside.append(key)
            hall.queue.started(key)
            order[namespace, policy].append(number)
        else:
            waiting.append(key)
        settle()
        for _ in range(min(ends, len(inside))):
            hall.queue.leave(inside.pop(0), now)
            settle()
    for _ in range(4 * len(arrivals)):
        now += 1.0
        for key in [key for key in waiting if "/slow/" in key]:
            if key in waiting and hall.enter(key, *POLICIES["slow"], now=now) is None:
                waiting.remove(key)
                inside.append(key)
                hall.queue.started(key)
                order[key.split("/")[0], "slow"].append(int(key.split("/")[2]))
            settle()
        while inside:
            hall.queue.leave(inside.pop(0), now)
            settle()
    assert not waiting
    assert len(hall.queue) == 0
    assert all(numbers == sorted(numbers) for numbers in order.values())


needs = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["free", "one"]), st.sampled_from([0, 10, 60, 100, 999])),
    min_size=1,
    max_size=40,
)


@settings(max_examples=repetitions(30, soak=2000), deadline=None)
@given(st.integers(1, 4), needs, st.data())
def test_memory_is_never_promised_twice_and_everybody_gets_some_in_the_end(capacity, arrivals, data):
    """Tasks arrive, end, give up while they wait, and need more or less than before."""
    hall, inside, waiting = Hall(capacity, memory=100), {}, {}

    def settle():
        for key in hall.let_in():
            inside[key] = waiting.pop(key)
            hall.queue.started(key)
        assert sum(min(memory, 100) for memory in inside.values()) <= 100
        assert len(inside) <= capacity
        assert inside or not waiting, "nobody works, and somebody waits"

    def enter(key, memory):
        waiting.pop(key, None)
        if hall.enter(key, *POLICIES[key.split("/")[1]], memory=memory) is None:
            inside[key] = memory
            hall.queue.started(key)
        else:
            waiting[key] = memory
        settle()

    for number, (namespace, policy, memory) in enumerate(arrivals):
        enter(f"{namespace}/{policy}/{number}", memory)
        for there in (inside, waiting):
            if there and data.draw(st.booleans()):
                key = data.draw(st.sampled_from(sorted(there)))
                del there[key]
                hall.queue.leave(key, 0)
                settle()
        if waiting and data.draw(st.booleans()):
            enter(data.draw(st.sampled_from(sorted(waiting))), data.draw(st.sampled_from([0, 50, 100])))
    while inside:
        key, _ = inside.popitem()
        hall.queue.leave(key, 0)
        settle()
    assert not waiting
    assert len(hall.queue) == 0


def test_rates_of_policies_that_are_gone_are_forgotten():
    hall = Hall(capacity=10_000)
    for n in range(1000):
        assert hall.enter(f"a/{n}", rate(f"p{n}", 60), now=float(n)) is None
        hall.queue.started(f"a/{n}")
        hall.queue.leave(f"a/{n}", float(n))
    assert len(hall.queue._buckets) == len(hall.queue._full_at) <= 101
    assert not hall.queue._running
    assert hall.enter("a/last", rate("p999", 60), now=999.0) is not None  # buckets that are not full are kept
