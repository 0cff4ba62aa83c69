from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remit.execution.gates import Gates


def test_all_gates_or_none() -> None:
    woken: list[str] = []
    gates = Gates(wake=woken.append)
    assert gates.enter("a", {"all": 2, "team": 1}) is None
    assert gates.enter("b", {"all": 2, "team": 1}) == "team"
    assert gates.enter("c", {"all": 2}) is None
    assert gates.enter("d", {"all": 2}) == "all"
    gates.leave("a")
    assert woken == ["b", "d"] or woken == ["d", "b"]


def test_entering_twice_holds_once() -> None:
    gates = Gates(wake=lambda key: None)
    assert gates.enter("a", {"all": 1}) is None
    assert gates.enter("a", {"all": 1}) is None
    gates.leave("a")
    assert gates.enter("b", {"all": 1}) is None


def test_those_that_wait_come_in_order() -> None:
    woken: list[str] = []
    gates = Gates(wake=woken.append)
    gates.enter("first", {"all": 1})
    for key in ("x", "y", "z"):
        assert gates.enter(key, {"all": 1}) == "all"
    assert gates.waiting() == 3
    gates.leave("first")
    assert woken == ["x"]


def test_one_that_gives_up_makes_no_one_wait() -> None:
    woken: list[str] = []
    gates = Gates(wake=woken.append)
    gates.enter("first", {"all": 1})
    gates.enter("x", {"all": 1})
    gates.enter("y", {"all": 1})
    gates.leave("x")
    gates.leave("first")
    assert woken == ["y"]


@given(
    wishes=st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=1, max_size=12),
    capacities=st.fixed_dictionaries({name: st.integers(1, 3) for name in "abc"}),
)
def test_everyone_gets_through_and_no_gate_overflows(wishes: list[set[str]], capacities: dict[str, int]) -> None:
    """Whoever is woken tries again, whoever is inside leaves in turn: in the end all have been inside."""
    ready = [str(number) for number in range(len(wishes))]
    gates = Gates(wake=ready.append)
    inside: list[str] = []
    been: set[str] = set()
    for _ in range(10_000):
        if ready:
            key = ready.pop(0)
            if key in been:
                continue
            if gates.enter(key, {name: capacities[name] for name in wishes[int(key)]}) is None:
                inside.append(key)
                been.add(key)
                for name in "abc":
                    assert sum(name in wishes[int(k)] for k in inside) <= capacities[name]
        elif inside:
            gates.leave(inside.pop(0))
        else:
            break
    assert len(been) == len(wishes)
