"""Tests `remit top` on Textual's virtual terminal, against an API server in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import pytest
from textual.pilot import Pilot

from remit.api.endpoint import Resource
from remit.cli import tasks
from remit.cli.top import watching
from remit.cli.top.actions import Question, perform
from remit.cli.top.app import REDRAW_SECONDS, Top
from remit.cli.top.board import Sight
from remit.cli.top.views import TASKS as TASKS_VIEW
from remit.describe.connection import Connection
from remit.errors import ApiError, RemitError
from remit.kube.client import DEPLOYMENTS, NAMESPACES, POLICIES, TASKS, Kube, Object
from support import pauses, repetitions

from .conftest import PATIENCE, World
from .test_releases import Shop, shop  # noqa: F401  # a fixture

HOSTILE = "\x1b]0;owned\x07\x1b[2J [bold red]x[/] [@click=app.quit]y[/] \u202e 漢字"


class Terminal:
    """The program and its screen."""

    def __init__(self, app: Top, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    @property
    def text(self) -> str:
        """Returns all lines of the screen."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    async def shows(self, *words: str) -> str:
        return await self.until(lambda text: all(word in text for word in words), f"{words}")

    async def until(self, condition: Callable[[str], object], what: str = "") -> str:
        pause = pauses()
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition(self.text):
                    await self.pilot.pause(next(pause))
        except TimeoutError:
            pytest.fail(f"in vain waited for {what}; shown:\n{self.text}")
        return self.text

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)


@contextlib.asynccontextmanager
async def terminal(
    world: World,
    *,
    size: tuple[int, int] = (120, 30),
    kube: Kube | None = None,
    everywhere: bool = False,
    labels: str = "",
) -> AsyncIterator[Terminal]:
    state = (world.settings.state_dir,)
    connection = Connection(kube or world.kube, "default", state, state)
    app = Top(connection, None if everywhere else "default", labels)
    async with app.run_test(size=size) as pilot:
        yield Terminal(app, pilot)


async def created(world: World, name: str, *, namespace: str = "default", **status: Any) -> Object:
    """Creates a task that no operator processes."""
    body = tasks.for_command(["echo", "hello"], name=name, labels={"team": namespace})
    if namespace == "other":
        await world.kube.create(NAMESPACES, None, {"metadata": {"name": namespace}})
    made = await world.kube.create(TASKS, namespace, body)
    return await told(world, name, namespace=namespace, **status) if status else made


async def told(world: World, name: str, *, namespace: str = "default", **status: Any) -> Object:
    status = {"observedGeneration": 1, **status}
    return await world.kube.patch(TASKS, namespace, name, {"status": status}, subresource="status")


async def test_tables_follow_what_happens_and_filters_and_tabs_choose(world: World) -> None:
    queue = {"position": 1, "waiting": 1, "reason": "OperatorCapacity"}
    await created(world, "waits", phase="Queued", queue=queue)
    await created(world, "elsewhere", namespace="other")
    schedule = tasks.for_command(["true"], name="nightly", schedule={"cron": "0 2 * * *"})
    await world.kube.create(TASKS, "default", schedule)
    await world.policy("echo")
    async with terminal(world) as top:
        text = await top.shows("● live", "waits", "1 of 1  OperatorCapacity", " Schedules 1 ", " Policies 1 ")
        assert "elsewhere" not in text
        assert "nightly" not in text
        await created(world, "comes")
        await top.shows("comes")
        await told(world, "comes", phase="Running", startTime="2026-01-01T00:00:00.000000Z", attemptCount=1)
        await top.shows("Running", "started 1/min")
        await top.press("slash", *"queued")
        await top.until(lambda text: "/queued 1 of 2" in text and "comes" not in text, "the filter")
        await top.press("escape")
        await top.shows("comes", "waits")
        await top.press("3")
        await top.shows("nightly", "0 2 * * *")
        await top.press("tab")
        await top.shows("LAST DENIED", "Enforce")
        await top.press("tab")
        await world.kube.delete(TASKS, "default", "comes")
        await top.until(lambda text: "waits" in text and "comes" not in text, "the end of a task")


async def test_namespaces_and_labels_choose(world: World) -> None:
    await created(world, "here")
    await created(world, "there", namespace="other")
    async with terminal(world, everywhere=True) as top:
        await top.shows("NAMESPACE", "here", "there", "all namespaces")
    async with terminal(world, everywhere=True, labels="team=other") as top:
        assert "here" not in (await top.shows("there", "-l team=other")).replace("there", "")


async def test_a_task_is_cancelled_after_confirmation(world: World) -> None:
    await created(world, "stays", phase="Running")
    async with terminal(world) as top:
        await top.shows("stays")
        await top.press("c")
        await top.shows("Cancel task default/stays? It is Running.")
        await top.press("n")
        await top.until(lambda text: "Cancel task" not in text, "the question to go")
        assert (await world.get("stays"))["spec"]["cancel"] is False
        await top.press("c", "y")
        await top.shows("task default/stays is being cancelled")
        assert (await world.get("stays"))["spec"]["cancel"] is True


async def test_a_copy_is_created(world: World) -> None:
    await created(world, "again", phase="Failed")
    async with terminal(world) as top:
        await top.shows("again")
        await top.press("r", "y")
        await top.shows("is created, a copy of again")
        names = [obj["metadata"]["name"] for obj in await world.kube.list(TASKS, "default")]
        assert len(names) == 2
        assert all(name.startswith("again") for name in names)


async def test_another_task_that_has_the_name_by_now_is_left_alone(world: World) -> None:
    await created(world, "twin", phase="Running")
    async with terminal(world) as top:
        await top.shows("twin")
        row = top.app.board.of(TASKS_VIEW)[0]
        await world.kube.delete(TASKS, "default", "twin")
        await created(world, "twin", phase="Running")
        with pytest.raises(RemitError, match="another one has its name by now"):
            await perform(Question("cancel", row, ""), top.app._connection)
    assert (await world.get("twin"))["spec"]["cancel"] is False


async def test_hostile_text_is_shown_as_text(world: World) -> None:
    error = {"reason": "ExitCode", "category": "ExitCode", "message": HOSTILE}
    output = {"stdoutTail": f"{HOSTILE}\n", "stdoutBytes": 99}
    attempt = {"number": 1, "id": "a", "startedAt": "2026-01-01T00:00:00.000000Z", "reason": HOSTILE}
    attempt |= {"finishedAt": "2026-01-01T00:00:01.000000Z"}
    await created(
        world, "evil", phase="Failed", message=HOSTILE, error=error, output=output, attempts=[attempt], attemptCount=1
    )
    escaped = r"\x1b]0;owned\x07\x1b[2J [bold red]x[/] [@click=app.quit]y[/] \u202e"
    async with terminal(world, size=(160, 40)) as top:
        texts = [await top.shows(f"ExitCode: {escaped}", "漢字")]
        await top.press("enter")
        texts.append(await top.shows(f"  message      {escaped}", "the end of stdout", f"  {escaped}"))
        await top.press("l")
        texts.append(await top.shows("output of default/evil", escaped, "[the end]"))
        await top.press("escape", "escape", "slash", *"[/b]")
        texts.append(await top.shows("/[/b] 0 of 1", "nothing has '[/b]' in it"))
        assert not any(char in text for text in texts for char in "\x1b\x07\u202e\x9b")


async def test_a_lost_server_leaves_the_last_picture_and_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_LONGEST_PAUSE", 0.3)
    await created(world, "before")
    async with terminal(world) as top:
        await top.shows("● live", "before")
        await world.control_plane.stop()
        await top.shows("○ no answer for", "before", "this is the last that was seen; reconnecting")
        await top.press("c", "y")
        await top.shows("does not answer")
        await world.control_plane.start()
        await created(world, "after")
        await top.shows("● live", "before", "after")


class Forbidding(Kube):
    """An API server whose roles forbid reading policies and changing anything."""

    async def request(self, method: str, path: str, **more: Any) -> Object:
        if method != "GET" or POLICIES.plural in path:
            raise ApiError(f"{method} is forbidden for ann", status=403, reason="Forbidden")
        return await super().request(method, path, **more)


async def test_missing_permissions_are_reported_in_one_line(world: World) -> None:
    await created(world, "visible", phase="Running")
    async with Forbidding(world.kube.access) as kube, terminal(world, kube=kube) as top:
        await top.shows("visible", "● 1 of 3 refused", "policies may not be seen", "GET is forbidden for ann")
        await top.press("c", "y")
        await top.shows("PATCH is forbidden for ann; ask for a role that allows it")
        await top.press("enter")
        await top.shows("today's policies say", "unknown", "ask for a role")
        assert top.app.mistake is None


async def test_many_changes_are_drawn_together_and_rest_draws_nothing(world: World) -> None:
    async with terminal(world) as top:
        await top.shows("● live")
        board, clock = top.app.board, asyncio.get_running_loop().time
        begun, before = clock(), top.app.redraws
        count = repetitions(1_000, soak=10_000)
        for number in range(count):
            body = tasks.for_command(["true"], name=f"t{number}")
            body["metadata"] |= {"uid": f"u{number}", "namespace": "default", "resourceVersion": "1"}
            board.put("tasks", body, clock())
            if number % 50 == 0:
                await asyncio.sleep(0)
        await top.shows(f" Tasks {count} ")
        assert top.app.redraws - before <= (clock() - begun) / REDRAW_SECONDS + 2
        await top.press("end")
        await top.shows(f"t{count - 1}")
        settled = top.app.redraws
        await top.pilot.pause(3 * REDRAW_SECONDS)
        assert top.app.redraws <= settled + 1
        board.see("tasks", Sight("lost", "gone", clock()))
        await top.shows("no answer for")


@pytest.mark.parametrize("width", [20, 40, 60, 80])
async def test_narrow_terminals_keep_names_and_phases(world: World, width: int) -> None:
    await created(world, "narrow", phase="Failed")
    async with terminal(world, size=(width, 12)) as top:
        text = await top.shows("narrow", "Fail")
        assert all(len(line) <= width for line in text.splitlines())
        await top.press("enter")
        await top.shows("phase", "Failed")
        await top.press("escape", "question_mark")
        await top.shows("Tab")


async def test_output_is_followed_while_it_is_written(world: World) -> None:
    await world.policy("sh")
    async with world.operator(), terminal(world) as top:
        await world.sh(r"printf 'first\n\033]0;title\007\n'; trap 'echo last; exit' TERM; sleep 600 & wait")
        await top.shows("Running")
        await top.press("l")
        await top.shows("first", r"\x1b]0;title\x07")
        await top.press("escape", "enter")
        await top.shows("attempts (1)", "today's policies say", "Allowed")
        await top.press("l")
        await top.shows("output of", "first")
        await top.press("escape", "c", "y")
        await top.shows("Cancelled")
        await top.press("l")
        await top.shows("last", "[the end]")


@pytest.mark.no_cover
async def test_a_release_that_waits_is_promoted(shop: Shop) -> None:  # noqa: F811
    manual = {"strategy": {"blueGreen": {"autoPromote": False, "scaleDownDelaySeconds": 0}}}
    async with shop.world.operator(), terminal(shop.world, size=(150, 30)) as top:
        await top.press("2")
        await shop.create("v1", **manual)
        await shop.live("v1")
        await top.shows("Healthy", "▶ r1 2/2 live")
        await shop.change("v2", **manual)
        await top.shows("AwaitingPromotion", "r2 2/2 preview", "waits for promotion: p promotes, a aborts")
        await top.press("enter")
        await top.shows("release default/shop", "revision 2", "promote shop -n default")
        await top.press("escape", "p")
        await top.shows("Promote revision 2 of default/shop?")
        await top.press("y")
        await top.shows("▶ r2 2/2 live")
        await shop.live("v2")
        await top.press("a")
        await top.shows("there is nothing to abort on default/shop")


async def test_a_mistake_of_its_own_ends_it_without_showing_what_it_knows(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    app = Top(Connection(world.kube, "default", ()), None, "")

    def fail(view: object) -> NoReturn:
        secret = "swordfish"  # Textual's own traceback would show it
        raise ValueError(len(secret))

    app.board.of = fail  # type: ignore[assignment]
    async with asyncio.timeout(PATIENCE):
        await app.run_async(headless=True, size=(80, 24))
    assert isinstance(app.mistake, ValueError)
    said = capsys.readouterr()
    assert "swordfish" not in said.out + said.err
    assert "Traceback" not in said.out + said.err


def test_every_kind_that_is_watched_is_known() -> None:
    known: set[Resource] = set(watching.RESOURCES.values())
    assert known == {TASKS, DEPLOYMENTS, POLICIES}
