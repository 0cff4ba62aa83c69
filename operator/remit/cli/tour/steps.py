"""The steps of the tour, and checks that they are true: every state that it tells of is checked."""

from __future__ import annotations

import json
from typing import Any

from remit.cli.tour import releases
from remit.cli.tour.stage import Stage, staged, until
from remit.errors import RemitError

_STUBBORN = ["sleep", "86461"]
"""The odd number of seconds that the stubborn task's processes sleep, to know them by."""
_EXPECTED = {"hello": "Succeeded", "wipe": "Denied", "flaky": "Succeeded", "stubborn": "TimedOut", "long": "Cancelled"}


def give() -> None:
    """Raises `RemitError` when anything is not as it should be."""
    with staged() as stage:
        _policies(stage)
        _output(stage)
        _denial(stage)
        _retry(stage)
        _timeout(stage)
        _cancel(stage)
        _look_back(stage)
        _check(stage)
        releases.play(stage)
    stage.say("That was Remit, with all of it checked: five tasks, each with its own end, and three releases.")


def _policies(stage: Stage) -> None:
    stage.say("Nothing may run until a policy says so. These two allow echo, sleep and, under a name, a shell.")
    stage.run("cat policies.yaml")
    stage.run("kubectl apply -f policies.yaml")
    stage.say("Four tasks. Applying them is all there is to do.")
    stage.run("kubectl apply -f tasks.yaml")


def _output(stage: Stage) -> None:
    stage.say("The first runs in a sandbox: no network, a read-only system, nobody else's processes.")
    stage.run("kubectl wait --for=condition=Finished executiontask/hello")
    stage.run("kubectl remit logs hello")


def _denial(stage: Stage) -> None:
    stage.say("No policy allows the second. It is denied, and says why.")
    stage.run("kubectl wait --for=condition=Finished executiontask/wipe")
    stage.run("kubectl get et wipe -o jsonpath='{.status.phase}: {.status.message}{\"\\n\"}'")


def _retry(stage: Stage) -> None:
    stage.say("The third fails twice. It is tried again after a second, then after two.")
    stage.run("kubectl wait --for=condition=Finished executiontask/flaky")
    stage.run("kubectl get et flaky -o jsonpath='{.status.attempts[*].reason}{\"\\n\"}'")
    stage.run("kubectl remit logs flaky --attempt 1; kubectl remit logs flaky")


def _timeout(stage: Stage) -> None:
    stage.say("This one ignores SIGTERM and hides a child in another session. It has five seconds.")
    stage.run("cat stubborn.yaml")
    stage.run("kubectl apply -f stubborn.yaml")
    until(lambda: len(stage.below(_STUBBORN)) == 2, "the stubborn task's two processes")
    seen = stage.below(_STUBBORN)
    stage.say(f"Seen from outside: {len(seen)} processes '{' '.join(_STUBBORN)}' are alive.")
    stage.run("kubectl wait --for=condition=Finished executiontask/stubborn")
    stage.run("kubectl get et stubborn -o jsonpath='{.status.message}{\"\\n\"}'")
    alive = [process for process in seen if process.is_running()]
    if alive:
        raise RemitError("processes of the stubborn task outlived it")
    stage.say(f"Seen from outside: {len(alive)} of them are alive.")


def _cancel(stage: Stage) -> None:
    stage.say("The fourth would sleep for an hour. Cancel it in flight.")
    stage.run("kubectl wait --for=jsonpath='{.status.phase}'=Running executiontask/long")
    stage.run("kubectl remit cancel long --wait")


def _look_back(stage: Stage) -> None:
    stage.say("Everything there is, in one table.")
    stage.run("kubectl get remit")
    stage.say("What happened to one of them, as kubectl describe has it.")
    stage.run("kubectl describe executiontask flaky | sed -n '/^Events:/,$p'")
    stage.say("The fields explain themselves.")
    stage.run("kubectl explain executiontask.spec.retry")
    stage.say("Every decision and every run is in a chain of hashes that shows any change.")
    stage.run("remit audit verify state/audit/audit.jsonl")


def _check(stage: Stage) -> None:
    tasks: dict[str, Any] = {
        task["metadata"]["name"]: task["status"]
        for task in json.loads(stage.ask("kubectl get executiontasks -o json"))["items"]
    }
    phases = {name: status["phase"] for name, status in tasks.items()}
    if phases != _EXPECTED:
        raise RemitError(f"the demo's tasks should have ended as {_EXPECTED}, but ended as {phases}")
    codes = [attempt.get("exitCode") for attempt in tasks["flaky"]["attempts"]]
    if codes != [1, 1, 0]:
        raise RemitError(f"the flaky task's attempts should have exited with 1, 1 and 0, not {codes}")
    if "No shell reads this: $HOME" not in tasks["hello"]["output"]["stdoutTail"]:
        raise RemitError("the first task's output is not what it said")
    if tasks["wipe"].get("attempts"):
        raise RemitError("the denied task ran")
