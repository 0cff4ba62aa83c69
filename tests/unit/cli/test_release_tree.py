"""Tests the tree of `remit get deployment NAME` at each step of a release."""

from __future__ import annotations

import datetime
import io
from typing import Any

import pytest
from rich.console import Console

import commandline
from releases import EPOCH, Sim, hook, live
from remit.api.deployment import Deployment
from remit.api.executiontask import ExecutionTask
from remit.cli import tables
from remit.cli.releasedrawing import draw
from remit.describe.releasetree import ReleaseTree, release_tree
from remit.release.conclusion import failure, over
from remit.release.model import HookKey
from remit.release.steps import RunHook

MANUAL = {"strategy": {"blueGreen": {"autoPromote": False}}}


def deployment(sim: Sim) -> Deployment:
    """Returns what the operator wrote last, as a client reads it."""
    obj = sim.object
    return Deployment.parse({**obj, "metadata": {**obj["metadata"], "name": "shop", "namespace": "default"}})


def tree_of(sim: Sim, *tasks: tuple[HookKey, ExecutionTask], options: str = "") -> ReleaseTree:
    return release_tree(deployment(sim), dict(tasks), sim.now, options=options)


def drawn(tree: ReleaseTree) -> str:
    screen = Console(file=io.StringIO(), width=200)
    screen.print(draw(tree))
    assert isinstance(screen.file, io.StringIO)
    return "\n".join(line.rstrip() for line in screen.file.getvalue().splitlines())


def task(name: str, phase: str, **status: Any) -> ExecutionTask:
    return ExecutionTask.parse(
        {"metadata": {"name": name}, "spec": {"command": {"line": "true"}}, "status": {"phase": phase, **status}}
    )


def test_at_the_gate_both_sides_and_the_two_ways_on_are_shown() -> None:
    sim = live("v1", **MANUAL).apply(version="v2", **MANUAL)
    sim.waits_for("AwaitingPromotion")
    sim.breathe(12)
    assert drawn(tree_of(sim, options=" -n web")).splitlines() == [
        "deployment shop  AwaitingPromotion  BlueGreen on Docker",
        "├── healthy; waits for somebody to promote it",
        "├── stage  Promote  (6 of 9)  for 12s  AwaitingPromotion",
        "├── revision 2  shop:v2  preview  InProgress",
        "│   └── green  2/2 ready  preview",
        "├── revision 1  shop:v1  live  Promoted  in 34s",
        "│   └── blue  2/2 ready  live",
        "├── →  remit promote shop -n web  lets it go on",
        "└── →  remit abort shop -n web  goes back to revision 1",
    ]
    assert not over(deployment(sim))


def test_hooks_are_with_their_revision_and_a_failed_one_says_why() -> None:
    stages = {"stages": {"bakeSeconds": 0, "prePromotion": [hook("smoke")]}}
    sim = live("v1", **stages).apply(version="v2", **stages)
    sim.until(RunHook)
    sim.step()
    key = HookKey(2, "PrePromotion", "smoke")
    tree = tree_of(sim, (key, task("shop-2-pre-smoke", "Failed", message="exit code 3")))
    assert "hook  smoke  (PrePromotion, task shop-2-pre-smoke)  Failed  exit code 3" in drawn(tree)
    assert tree.revisions[1].hooks == ()
    assert tree.line.endswith("revision 2 on green 2/2 preview; revision 1 on blue 2/2 live; hook smoke Failed")
    assert [advice.split()[1] for advice in tree.advice] == ["abort"]


def test_after_the_switch_the_new_side_is_live_and_the_old_one_is_kept() -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("Baking")
    tree = tree_of(sim)
    assert [(branch.number, branch.marks, branch.sides[0].marks) for branch in tree.revisions] == [
        (2, ("live",), ("live",)),
        (1, (), ()),
    ]
    assert [advice.split()[1] for advice in tree.advice] == ["promote", "abort"]


def test_a_side_that_is_not_whole_says_what_is_wrong() -> None:
    sim = live("v1").apply(version="v2")
    sim.behaviour["v2"] = "crashing"
    sim.waits_for("Unhealthy")
    sim.breathe()
    sim.step()
    (side,) = tree_of(sim).revisions[0].sides
    assert (side.ready, side.wanted, side.whole, side.restarts) == (0, 2, False, side.restarts)
    assert f"green  0/2 ready  preview  {side.restarts} restart" in drawn(tree_of(sim))


def test_a_release_that_failed_is_over_and_can_be_tried_again() -> None:
    sim = live("v1").apply(version="v2", progressDeadlineSeconds=5)
    sim.behaviour["v2"] = "unhealthy"
    sim.finish()
    sim.settle()
    tree = tree_of(sim)
    why = failure(deployment(sim))
    assert over(deployment(sim))
    assert why is not None
    assert (why.reason, str(why)) == ("ProgressDeadlineExceeded", f"deployment default/shop: {sim.status.message}")
    assert (tree.phase, tree.stage) == ("Degraded", None)
    assert [advice.split()[1] for advice in tree.advice] == ["retry"]


def test_what_cannot_begin_is_not_to_be_tried_again() -> None:
    sim = live("v1").apply(version="v1", rollbackTo={"revision": 99})
    sim.step()
    tree = tree_of(sim)
    assert (tree.phase, tree.message, tree.advice) == ("Degraded", "spec.rollbackTo: revision 99 is not kept", ())


def test_a_pause_by_request_is_ended_by_one_and_a_pause_in_the_spec_is_not() -> None:
    sim = live("v1").apply(version="v2")
    sim.ask("pause").waits_for("Paused")
    assert [advice.split()[1] for advice in tree_of(sim).advice] == ["resume"]
    sim = live("v1").apply(version="v2", paused=True)
    sim.waits_for("Paused")
    assert tree_of(sim).advice == ()


def test_a_pinned_revision_is_marked() -> None:
    sim = live("v1").apply(version="v2")
    sim.finish()
    sim.settle().ask("rollback")
    sim.finish()
    sim.settle()
    (marks,) = [branch.marks for branch in tree_of(sim).revisions if branch.number == 1]
    assert marks == ("live", "pinned")
    assert [advice.split()[1] for advice in tree_of(sim).advice] == ["retry"]
    assert (over(deployment(sim)), failure(deployment(sim))) == (True, None)


def test_missing_instances_of_the_live_side_can_be_left_behind() -> None:
    sim = live("v1").apply(version="v2")
    sim.finish()
    sim.settle().behaviour["v2"] = "unhealthy"
    sim.breathe()
    sim.step()
    tree = tree_of(sim)
    assert (tree.phase, [advice.split()[1] for advice in tree.advice]) == ("Degraded", ["rollback"])


def test_one_that_nobody_looked_at_is_shown_all_the_same() -> None:
    spec = {"artifact": {"path": "/srv/shop"}, "target": {"process": {"command": ["serve"]}}}
    new = Deployment.parse({"metadata": {"name": "shop", "generation": 1}, "spec": spec})
    tree = release_tree(new, {}, EPOCH)
    assert (tree.phase, tree.message, tree.revisions) == ("Pending", "no operator has looked at it yet", ())
    assert not over(new)


def test_an_end_of_another_spec_is_no_end() -> None:
    sim = live("v1")
    seen = deployment(sim)
    assert over(seen)
    newer = seen.metadata.model_copy(update={"generation": 2})
    assert not over(seen.model_copy(update={"metadata": newer}))


def test_what_a_deployment_says_drives_no_terminal() -> None:
    sim = live("v1")
    sim.status = sim.status.model_copy(update={"message": "[red]\x1b[31m\nnext"})
    assert r"[red]\x1b[31m\nnext" in drawn(tree_of(sim))


def test_the_table_has_the_columns_of_kubectl(capsys: pytest.CaptureFixture[str]) -> None:
    obj = deployment(live("v1")).model_dump(mode="json", by_alias=True)
    obj["metadata"]["creationTimestamp"] = (
        datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    ).isoformat()
    tables.show("deployments", [obj], wide=True, namespaces=False)
    header, row = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert header[:7] == ["NAME", "PHASE", "STAGE", "ACTIVE", "PREVIEW", "READY", "AGE"]
    assert row[:6] == ["shop", "Healthy", "shop:v1", "(1)", "2/2", "5m"]


@pytest.mark.parametrize("arguments", [["deploy", "shop", "--until-done"], ["tasks", "a", "-w", "--until-done"]])
def test_an_end_is_only_waited_for_where_there_is_one(arguments: list[str]) -> None:
    result = commandline.invoke("get", *arguments)
    assert result.exit_code == 2
    assert "--until-done" in result.output
