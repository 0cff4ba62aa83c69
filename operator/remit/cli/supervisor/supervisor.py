"""Keeps the control plane and the operator running, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO, cast

import structlog
import typer

from remit.cli.logsetup import set_up_logs
from remit.cli.signals import stop_requested
from remit.cli.supervisor.channel import Message
from remit.cli.supervisor.logstream import LogStream
from remit.cli.supervisor.restarts import Restarts
from remit.cli.supervisor.worker import Worker
from remit.controlplane.startup import DATABASE, AddressInUse, lock_state, open_sockets, raise_descriptor_limit
from remit.errors import InvalidInput, RemitError
from remit.privatefiles import private_directory
from remit.sandbox.cgrouptree import make_room
from remit.stateformat import check_state_format
from remit.telemetry.logfile import LogFile
from remit.telemetry.logs import form_for
from remit.web import listening, login

log = structlog.get_logger(__name__)

USUAL_PORT: Final = 6443
"""What a Kubernetes API server listens on."""
_TRIES: Final = 20
_LOCK_SECONDS: Final = 3.0
"""How long the processes of a killed supervisor may take to be dead."""
_LOOK_SECONDS: Final = 0.05
_STOP_SECONDS: Final = 15.0
"""How long the control plane may take to stop, which waits for nothing once the operator has ended."""
_SILENT_SECONDS: Final = 30.0
"""How long the operator may be silent while it stops. It reports again and again, as tasks may take an hour to end."""
_START_SECONDS: Final = 300.0
"""How long a process that starts may be silent."""
_LOOK_APART_SECONDS: Final = 1.0
_KILL_SECONDS: Final = 5.0
_LAST_LINES_SECONDS: Final = 2.0
"""How long a reader of the log may take for its last lines."""


@dataclass(frozen=True, slots=True)
class UpSettings:
    """The options of `remit up`."""

    state_dir: Path
    host: str
    port: int | None
    """0: a free one; None: the usual one, or the next that is free."""
    kubeconfig: Path | None
    """A further kubeconfig to put the login into."""
    operator: dict[str, Any]
    """Fields of the operator's `Settings`, as JSON has them."""
    log_format: str
    log_level: str
    log_file: LogFile | None = None
    """Where logs go instead of standard error."""
    page: tuple[str, int | None] | None = None
    """Address and port of the page; port None: the usual one, or another that is free. None: no page."""


async def up(settings: UpSettings) -> None:
    """Everything on this machine, until asked to stop. Raises `RemitError` when a part does not start, or not again."""
    stream = LogStream(sys.stderr.fileno(), file=settings.log_file)
    form = form_for(cast(TextIO, stream)) if settings.log_format == "auto" else settings.log_format
    logs = {"log_format": form, "log_level": settings.log_level, "log_colors": stream.isatty()}
    set_up_logs(form, settings.log_level, stream=cast(TextIO, stream))
    private_directory(settings.state_dir)
    check_state_format(settings.state_dir)
    make_room()  # before the child processes exist, because the operator could not move them to another cgroup
    raise_descriptor_limit()
    with contextlib.ExitStack() as stack:
        stack.callback(stream.drain, _LAST_LINES_SECONDS)
        lock = await _locked(settings.state_dir / DATABASE)
        stack.callback(os.close, lock)
        sockets = _listening(settings.host, settings.port)
        for each in sockets:
            stack.enter_context(each)
        descriptors = [each.fileno() for each in sockets]
        page_sockets = listening.page_sockets(*settings.page) if settings.page else []
        for each in page_sockets:
            stack.enter_context(each)
        control_plane = Service("control plane", "control-plane", [lock, *descriptors], write=stream.pass_on)
        operator = Service("operator", "operator", requires=control_plane, write=stream.pass_on)
        page = Service(
            "page",
            "page",
            [each.fileno() for each in page_sockets],
            requires=control_plane,
            write=stream.pass_on,
            on_demand=page_sockets,
        )
        page_url = listening.page_url(page_sockets)
        if page_sockets:
            stack.callback((settings.state_dir / login.PAGE_FILE).unlink, missing_ok=True)
            login.write_page_file(settings.state_dir, page_url)

        def control_plane_settings() -> Message:
            places = {"state_dir": str(settings.state_dir), "host": settings.host}
            return {**logs, **places, "lock": lock, "sockets": descriptors}

        def operator_settings() -> Message:
            first = not operator.facts
            fields = {**settings.operator, "only_user": control_plane.facts["user"]}
            if not first:  # a restarted operator keeps its port, which metrics clients know
                fields["health_port"] = operator.facts["metrics_port"]
            merge_into = str(settings.kubeconfig) if settings.kubeconfig and first else ""
            return {
                **logs,
                "operator": fields,
                "kubeconfig": control_plane.facts["kubeconfig"],
                "merge_into": merge_into,
            }

        def page_settings() -> Message:
            facts = control_plane.facts
            return {
                **logs,
                "state_dir": str(settings.state_dir),
                "url": page_url,
                "sockets": [each.fileno() for each in page_sockets],
                "kubeconfig": facts["kubeconfig"],
                "user": facts["user"],
                "operator_namespace": settings.operator["operator_namespace"],
                "again": page.begun > 1,
            }

        def kill() -> None:
            _kill(page, operator, control_plane)

        with stop_requested(before_exit=kill) as stop, _reaping(control_plane, operator, page):
            paging = asyncio.ensure_future(_keep_page(page, page_settings, page_sockets))
            keeping = [
                asyncio.ensure_future(control_plane.keep(control_plane_settings)),
                asyncio.ensure_future(operator.keep(operator_settings)),
            ]
            try:
                await _first(stop.wait(), operator.ready.wait(), *keeping)
                if operator.ready.is_set() and not stop.is_set():
                    _welcome(settings, control_plane.facts, operator.facts, page_url)
                    await _first(stop.wait(), *keeping)
                if stop.is_set():
                    log.info("stopping; once more stops at once")
            finally:
                await asyncio.gather(page.stop(_STOP_SECONDS), operator.stop(_SILENT_SECONDS, unless_heard=True))
                await control_plane.stop(_STOP_SECONDS)
                kill()
                paging.cancel()
            ended = [each for each in keeping if each.done()]  # all of them, except a process that cannot be killed
            for outcome in await asyncio.gather(*ended, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome


class Service:
    """A part of `remit up` that is kept running."""

    def __init__(
        self,
        name: str,
        role: str,
        descriptors: Sequence[int] = (),
        *,
        requires: Service | None = None,
        write: Callable[[bytes], None] = lambda lines: None,
        on_demand: Sequence[socket.socket] = (),
    ) -> None:
        """It is told to begin, but not started, when what it `requires` is ready. `write` gets what it logs. With
        `on_demand`, it is started when somebody connects to one of these sockets, as systemd does it."""
        self.name = name
        self.facts: Message = {}
        """What it said of itself when it was last ready."""
        self.ready = asyncio.Event()
        self._role = role
        self._descriptors = descriptors
        self._requires = requires
        self._write = write
        self._on_demand = on_demand
        self.begun = 0
        """How often its process was started."""
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self.worker: Worker | None = None
        """The process of the service, while there is one."""

    async def keep(self, settings: Callable[[], Message]) -> None:
        """Keep the service running until `stop`. Raises `RemitError` when it does not come up, with the reason."""
        try:
            await self._keep(settings)
        finally:
            self._ended.set()

    async def keep_nothing(self) -> None:
        """It is not wanted."""
        self._ended.set()

    async def _keep(self, settings: Callable[[], Message]) -> None:
        history = Restarts()
        while not self._stopping.is_set():
            if self._on_demand:
                await _first(_connected(self._on_demand), self._stopping.wait())
                if self._stopping.is_set():
                    return
            ready_seconds, reason = await self._run_once(settings, again=history.in_row > 0)
            if self._stopping.is_set():
                return
            history = history.after_end(ready_seconds)
            if history.delay is None:
                raise RemitError(f"the {self.name} does not come up, after {history.failed_starts} tries: {reason}")
            log.warning("a part ended and is started again", part=self.name, reason=reason, seconds=history.delay)
            await _first(asyncio.sleep(history.delay), self._stopping.wait())

    async def _run_once(self, settings: Callable[[], Message], *, again: bool) -> tuple[float | None, str]:
        """Run the service once. Return for how many seconds it was ready (None: never) and why it ended.

        Raises `RemitError` where it says that it cannot start, and never has: what is wrong was wrong from the start.
        """
        clock = asyncio.get_running_loop().time
        try:
            self.begun += 1
            worker = self.worker = Worker(self._role, self._descriptors, self._write)
        except OSError as error:
            return None, f"it cannot be started: {error}"
        since = None
        if await self._begin(worker, settings):
            since = clock()
            if again:
                log.info("ready again", part=self.name, pid=worker.pid)
        reason = await worker.ended
        self.worker = None
        self.ready.clear()
        if worker.failure and not self.facts:
            raise RemitError(worker.failure)
        return (None if since is None else clock() - since), reason

    async def _begin(self, worker: Worker, settings: Callable[[], Message]) -> bool:
        """Whether it became ready."""
        if self._requires is not None:
            await _first(self._requires.ready.wait(), self._stopping.wait(), worker.ended)
        if self._stopping.is_set():
            worker.ask_to_stop()
            return False
        if not worker.ended.done():
            worker.configure(settings())
            await self._started(worker)
        if worker.ended.done():
            return False
        self.facts = worker.ready.result()
        self.ready.set()
        return True

    async def _started(self, worker: Worker) -> None:
        """Wait until the service is ready, or has ended: it is killed where it says nothing while it starts."""
        starting = asyncio.ensure_future(_first(worker.ready, worker.ended))
        try:
            if not await _in_time(starting, _START_SECONDS, lambda: worker.heard):
                worker.give_up(f"it said nothing for {_START_SECONDS:g} s while it started, and was killed")
                await starting
        finally:
            starting.cancel()

    async def stop(self, seconds: float, *, unless_heard: bool = False) -> None:
        """Ask it to stop, and wait until it has; where it takes longer than `seconds`, it is killed. `unless_heard`:
        where it says nothing for so long."""
        self._stopping.set()
        if self.worker is not None:
            self.worker.ask_to_stop()

        def heard() -> float:
            return self.worker.heard if unless_heard and self.worker is not None else 0.0

        ending = asyncio.ensure_future(self._ended.wait())
        try:
            if await _in_time(ending, seconds, heard):
                return
            log.warning("a part did not stop and is killed", part=self.name)
            _kill(self)
            if not await _in_time(ending, _KILL_SECONDS, lambda: 0.0):
                log.error("a part was killed, and does not die; end it by hand", part=self.name, pid=self.pid)
        finally:
            ending.cancel()

    @property
    def pid(self) -> int | None:
        return self.worker.pid if self.worker is not None else None


async def _keep_page(page: Service, settings: Callable[[], Message], sockets: Sequence[socket.socket]) -> None:
    """Nothing else depends on the page: where it does not come up, the rest goes on without it."""
    if not sockets:
        await page.keep_nothing()
        return
    try:
        await page.keep(settings)
    except RemitError as error:
        log.warning("the page is not served any more", reason=str(error))
    finally:
        for each in sockets:
            each.close()


async def _connected(sockets: Sequence[socket.socket]) -> None:
    """Wait until somebody has connected to one of the sockets. The connection is not accepted."""
    loop, come = asyncio.get_running_loop(), asyncio.Event()
    for each in sockets:
        loop.add_reader(each, come.set)
    try:
        await come.wait()
    finally:
        for each in sockets:
            loop.remove_reader(each)


def _kill(*services: Service) -> None:
    """Whatever they do. Returns when they are dead."""
    workers = [service.worker for service in services if service.worker is not None]
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.wait(_KILL_SECONDS)


@contextlib.contextmanager
def _reaping(*services: Service) -> Iterator[None]:
    """Reap orphans: as the first process of a container, this one inherits the children of services that end."""

    def reap() -> None:
        reap_orphans([service.worker.pid for service in services if service.worker is not None])

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, reap)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGCHLD)


def reap_orphans(awaited: Collection[int]) -> None:
    """Take note of the ends of all children but those that somebody else waits for."""
    peek = os.WEXITED | os.WNOHANG | os.WNOWAIT
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, peek)) and ended.si_pid not in awaited:
            os.waitpid(ended.si_pid, 0)


async def _in_time(ending: asyncio.Future[Any], seconds: float, heard: Callable[[], float]) -> bool:
    """Wait for `ending`, until nothing was `heard` for so long. Whether it came.

    The wait is one of many looks: where everything stood still, as in a container that is paused, it goes on.
    """
    last, left = heard(), seconds
    while left > 0:
        look = min(left, _LOOK_APART_SECONDS)
        await asyncio.wait({ending}, timeout=look)
        if ending.done():
            return True
        left -= look
        if (latest := heard()) > last:
            last, left = latest, seconds
    return False


async def _first(*awaitables: Any) -> None:
    """Wait until one of them is done, and cancel those that were begun for this."""
    given = [each for each in awaitables if asyncio.isfuture(each)]
    begun = [asyncio.ensure_future(each) for each in awaitables if not asyncio.isfuture(each)]
    try:
        await asyncio.wait([*given, *begun], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in begun:
            each.cancel()


async def _locked(database: Path) -> int:
    """The lock on the state directory. Raises `InvalidInput` when another control plane goes on using it."""
    clock = asyncio.get_running_loop().time
    until = clock() + _LOCK_SECONDS
    while True:
        try:
            return lock_state(database)
        except InvalidInput:
            if clock() > until:
                raise
        await asyncio.sleep(_LOOK_SECONDS)


def _listening(host: str, port: int | None) -> list[socket.socket]:
    """Sockets that listen on `port`; if it is None, on the usual one or the next that is free. Raises `RemitError`."""
    if port is not None:
        return open_sockets(host, port)
    for candidate in range(USUAL_PORT, USUAL_PORT + _TRIES):
        with contextlib.suppress(AddressInUse):
            return open_sockets(host, candidate)
    raise RemitError(f"ports {USUAL_PORT} to {USUAL_PORT + _TRIES - 1} of {host} are taken; choose one with --port")


def _welcome(settings: UpSettings, control_plane: Message, operator: Message, page_url: str) -> None:
    where = settings.kubeconfig or Path(control_plane["kubeconfig"])
    page = ""
    if page_url and sys.stdout.isatty():
        link = login.login_url(login.read_page_file(settings.state_dir), time.time())
        page = f"See what happens: {link}\n(that works once; 'remit page' prints another)\n\n"
    elif page_url:  # a login link must not be written to a file or a journal
        page = f"See what happens: {page_url} ('remit page' prints a link that logs in)\n\n"
    typer.echo(
        f"Remit serves {control_plane['url']} (metrics on port {operator['metrics_port']}). In another terminal:\n"
        "\n"
        f"  export KUBECONFIG={where.absolute()}\n"
        "  kubectl get remit -A\n"
        "  remit run -- echo hello        # denied until a CommandPolicy allows it\n"
        "\n"
        f"{page}"
        "Ctrl-C stops it.",
    )
    sys.stdout.flush()
