"""Successive operators, each a process, that are killed with SIGKILL at a chosen point of a release.

    python mortaloperator.py KUBECONFIG STATE_DIR [NAMESPACE]

reads points from stdin, one per line, such as `Switch before`, `Switch after` or `Provision amid`. A point is in a step
of the pipeline or in a wait (`Baking before`). For each point it runs an operator until it dies there, and reports it.
`Begin before` is the moment when a release was decided on and nothing was written. `_COLLECTING` has the points of
collecting artifacts from a container.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from remit.backends.docker.archives import EngineArchives
from remit.backends.docker.backend import DockerBackend
from remit.controllers.operator import running_operator
from remit.controllers.settings import Settings
from remit.execution.artifacts.folderstore import BlobWriter, FolderStore
from remit.kube.access import Access
from remit.release import driver
from remit.release.steps import Decision, Wait
from remit.sandbox import probe_host
from remit.telemetry.redact import Redactor

_AMID_SECONDS = 0.1
_PATIENCE = 120

_FORWARD = (
    *("Begin before", "Prepare before", "Prepare after", "Provision before", "Provision amid", "Preview after"),
    *("RunHook before", "RunHook after", "Switch before", "Switch after", "RunHook before", "RunHook after"),
    "Baking before",
)
"""Points of a release with a hook before the switch, a hook after it, and a bake."""
_AFTERWARDS = ("Finish before", "Drain before", "Drain after", "Retire amid")
"""Points of the same release after its bake."""
_BACK = ("Provision after", "Switch after", "Switch before", "Switch after", "Finish before", "Retire before")
"""Points of a release whose hook after the switch fails."""


def _hook(name: str, program: str) -> list[dict[str, Any]]:
    return [{"name": name, "task": {"command": {"argv": [program]}}}]


HOOKS = {"commands": {"allow": [{"executable": "true"}, {"executable": "false"}]}}
"""Policy rules that the hooks need."""
_GOOD = {"prePromotion": _hook("pre", "true"), "postPromotion": _hook("post", "true"), "bakeSeconds": 600}
_BAD = {"postPromotion": _hook("post", "false"), "bakeSeconds": 0}


class Released(Protocol):
    """A Deployment whose first version is live."""

    async def change(self, version: str, **changes: Any) -> None: ...

    async def ask(self, request: str) -> None: ...


class Mortals:
    """The test's side: starts successive operators, each of which dies at its point."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def dies(self, point: str) -> None:
        """Returns when an operator has died at this point."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(point.encode() + b"\n")
        try:
            async with asyncio.timeout(_PATIENCE):
                said = (await self._process.stdout.readline()).decode().strip()
        except TimeoutError:
            said = "nothing: it lives"
        assert said == f"{point}: {signal.SIGKILL:d}", f"after {point}, the operator said {said}"


async def killed_at_every_stage(
    operators: Mortals, shop: Released, settled: Callable[[], Awaitable[dict[str, Any]]]
) -> tuple[list[str], list[str]]:
    """Releases a good v2 and then a faulty v3, which is rolled back. Returns the outcomes in history, newest first,
    after each release.

    `settled` runs an operator until v2 is live, and returns the status.
    """

    async def outcomes() -> list[str]:
        return [each["outcome"] for each in (await settled())["history"]]

    await shop.change("v2", stages=_GOOD)
    for point in _FORWARD:
        await operators.dies(point)
    await shop.ask("promote")  # skips the rest of the bake
    for point in _AFTERWARDS:
        await operators.dies(point)
    forward = await outcomes()
    await shop.change("v3", stages=_BAD)
    for point in _BACK:
        await operators.dies(point)
    return forward, await outcomes()


@asynccontextmanager
async def mortals(kubeconfig: Path, state: Path, *namespace: str) -> AsyncIterator[Mortals]:
    """Yields operators for all namespaces, or for one. No operator runs before and after."""
    source = Path(__file__).parents[1] / "operator"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, str(kubeconfig), str(state), *namespace),
        env={**os.environ, "PYTHONPATH": str(source)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield Mortals(process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def main(kubeconfig: Path, settings: Settings) -> None:
    """Imports the modules once; each operator is forked from this process, which has no threads."""
    probe_host()
    for line in sys.stdin:
        point = line.strip()
        if not (child := os.fork()):
            os.dup2(2, 1)
            asyncio.run(live(kubeconfig, settings, *point.split()))
        _, status = os.waitpid(child, 0)
        print(f"{point}: {os.waitstatus_to_exitcode(status) * -1}", flush=True)


_COLLECTING: dict[str, tuple[Any, str]] = {
    "Open": (EngineArchives, "open"),
    "Put": (BlobWriter, "put"),
    "Sync": (BlobWriter, "sync"),
    "Collect": (DockerBackend, "_collected"),
    "Remove": (DockerBackend, "_surely_remove"),
    "Commit": (FolderStore, "commit"),
}
"""Points of collecting artifacts: an archive is opened, the content of a file is stored, all content is on the disk,
the record is made; the container is removed; and the outcome of the attempt is recorded with its artifacts."""


def _die_of(owner: Any, name: str, when: str) -> None:
    done = getattr(owner, name)

    async def waited(*args: Any, **options: Any) -> Any:
        if when == "before":
            die()
        await done(*args, **options)
        die()

    def called(*args: Any, **options: Any) -> Any:
        if when == "before":
            die()
        done(*args, **options)
        die()

    setattr(owner, name, waited if inspect.iscoroutinefunction(done) else called)


async def live(kubeconfig: Path, settings: Settings, what: str, when: str) -> None:
    if what in _COLLECTING:
        _die_of(*_COLLECTING[what], when)
    decide, take = driver.next_step, driver.ReleaseDriver._take

    def decided(desired: Any, observed: Any, state: Any, now: Any) -> Decision:
        decision = decide(desired, observed, state, now)
        begins = state.releasing is None and decision.state.releasing is not None
        if (what == "Begin" and begins) or (isinstance(decision.step, Wait) and decision.step.reason == what):
            die()
        return decision

    async def taken(self: Any, place: Any, decision: Any, material: Any) -> None:
        here = type(decision.step).__name__ == what
        if here and when == "before":
            die()
        if here and when == "amid":
            threading.Timer(_AMID_SECONDS, die).start()
        await take(self, place, decision, material)
        if here:
            die()

    driver.next_step = decided
    driver.ReleaseDriver._take = taken  # type: ignore[method-assign]
    async with running_operator(await Access.load(kubeconfig), settings, Redactor()):
        await asyncio.Event().wait()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    alone = {"operator_namespace": sys.argv[3], "namespaces": (sys.argv[3],)} if len(sys.argv) > 3 else {}
    main(Path(sys.argv[1]), Settings(state_dir=Path(sys.argv[2]), leader_election=False, **alone))
