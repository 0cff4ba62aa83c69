"""Tests attempts in containers of a real Docker engine."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from dockers import Heard, docker
from remit.backends.base import AttemptRequest, Command, Handle
from remit.backends.docker.backend import DockerBackend
from remit.backends.docker.engine import Engine
from remit.backends.failure import OperationFailed
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import InvalidInput, SandboxUnavailable
from remit.sandbox import Confinement, Layer, Limits

PATIENCE = 60


@pytest.fixture
async def backend(image: str) -> AsyncIterator[DockerBackend]:
    engine = Engine()
    yield DockerBackend(engine)
    await engine.close()


@pytest.fixture
def heard() -> Heard:
    return Heard()


Asking = Callable[..., AttemptRequest]


@pytest.fixture
def asking(image: str) -> Iterator[Asking]:
    """Provides requests for `sh -c SCRIPT`. Asserts that nothing of them remains on the engine."""
    ids: list[str] = []

    def request(script: str, limits: Limits = Limits(), **rest: Any) -> AttemptRequest:  # noqa: B008
        ids.append(f"{uuid.uuid4()}-1")
        env = {"REMIT_TASK_NAME": "t", "REMIT_TASK_NAMESPACE": "ns", **rest.pop("env", {})}
        command = Command(("sh", "-c", script), "", env, rest.pop("stdin", b""))
        confinement = Confinement(limits, network=rest.pop("network", "none"), require=rest.pop("require", frozenset()))
        return replace(AttemptRequest(ids[-1], command, confinement, timeout_seconds=60, image=image), **rest)

    yield request
    left = [id_ for id_ in ids if docker("inspect", f"remit-{id_}").returncode == 0]
    docker("rm", "-fv", *(f"remit-{id_}" for id_ in left))
    assert left == [], "containers were left"


async def run(backend: DockerBackend, request: AttemptRequest, heard: Heard) -> Outcome:
    return await asyncio.wait_for(backend.run(request, heard, cancel=asyncio.Event()), PATIENCE)


async def test_output_code_and_walls(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    handles: list[Handle] = []
    request = asking("echo out; echo err >&2; id -u; exit 3")
    outcome = await backend.run(request, heard, cancel=asyncio.Event(), on_started=handles.append)
    assert (outcome.reason, outcome.exit_code) == (ExitReason.EXIT_CODE, 3)
    assert (heard.out, heard.err) == (b"out\n65534\n", b"err\n")
    assert [handle.container for handle in handles] == [f"remit-{request.id}"]
    assert set(outcome.layers) == {Layer.NAMESPACES, Layer.SECCOMP, Layer.CGROUP, Layer.RLIMITS}
    assert outcome.missing == (Layer.LANDLOCK,)
    assert outcome.finished_at.tzinfo is not None


async def test_inside(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    limits = Limits(disk_bytes=4 << 20, open_files=64, file_bytes=1 << 20)
    script = (
        "grep() { while read a b; do case $a in Cap*|NoNew*|Seccomp:) echo $a $b;; esac; done; };"
        " grep < /proc/self/status; ulimit -n; ls /sys/class/net; touch /x; touch /workspace/y && echo wrote;"
        " pwd; echo $SECRET"
    )
    outcome = await run(backend, asking(script, limits, env={"SECRET": "from the API"}), heard)
    said = heard.out.decode()
    assert "CapEff: 0000000000000000\n" in said
    assert "CapBnd: 0000000000000000\n" in said
    assert "NoNewPrivs: 1\n" in said
    assert "Seccomp: 2\n" in said
    assert "\n64\nlo\nwrote\n" in said
    assert said.endswith("/workspace\nfrom the API\n")
    assert b"Read-only file system" in heard.err
    assert outcome.enforced_by["disk_bytes"] == "tmpfs size"


async def test_the_disk_is_bounded(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    outcome = await run(
        backend, asking("dd if=/dev/zero of=/tmp/big bs=1000000 count=8", Limits(disk_bytes=1 << 20)), heard
    )
    assert outcome.reason is ExitReason.DISK_EXCEEDED


async def test_stdin(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    text = b"line\n" * 40_000
    await run(backend, asking("wc -c; echo done", stdin=text), heard)
    assert heard.out == b"200000\ndone\n"


async def test_stdin_that_is_not_read(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    outcome = await run(backend, asking("exit 4", stdin=b"x" * 200_000), heard)
    assert outcome.exit_code == 4


async def test_private_files(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    files = {"/run/remit/script": b"echo from the script", "/run/secrets/a/key": b"hunter22"}
    await run(backend, asking("sh /run/remit/script; cat /run/secrets/a/key; ls -l /run/secrets/a", files=files), heard)
    assert heard.out.startswith(b"from the script\nhunter22")
    assert b"-r-------- " in heard.out
    volumes = docker("volume", "ls", "-q", "--filter", "dangling=true").stdout
    for path in ("/workspace/.netrc", "/tmp/x"):
        with pytest.raises(InvalidInput, match="below /run"):
            await run(backend, asking("true", files={path: b""}), heard)
    assert docker("volume", "ls", "-q", "--filter", "dangling=true").stdout == volumes


async def test_more_memory_than_it_may(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    # The container continues after the OOM kill, because the engine may miss a kill that ends the container.
    command = "yes | tail -c 100000000 > /dev/null; code=$?; sleep 1; exit $code"
    outcome = await run(backend, asking(command, Limits(memory_bytes=16 << 20)), heard)
    if outcome.exit_code == 0:  # the shell ignores the exit code of the first part of a pipe
        pytest.fail(f"nothing was killed: {outcome}")
    assert (outcome.reason, outcome.exit_code) == (ExitReason.OOM_KILLED, 137)


async def test_a_timed_out_command_receives_sigterm_first(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    script = "trap 'echo asked; exit 0' TERM; while true; do sleep 0.1; done"
    outcome = await run(backend, asking(script, timeout_seconds=1, grace_seconds=30), heard)
    assert outcome.reason is ExitReason.TIMED_OUT
    assert heard.out == b"asked\n"


async def test_what_ignores_term_is_killed(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    cancel = asyncio.Event()
    request = asking("trap '' TERM; echo ready; while true; do sleep 0.1; done", grace_seconds=1)
    running = asyncio.create_task(backend.run(request, heard, cancel=cancel))
    await heard.begun(running)
    cancel.set()
    outcome = await asyncio.wait_for(running, PATIENCE)
    assert (outcome.reason, outcome.exit_code) == (ExitReason.CANCELLED, 137)


async def test_a_closed_output_is_not_the_end(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    outcome = await run(backend, asking("echo last; exec >&- 2>&-; sleep 1; exit 7"), heard)
    assert (outcome.exit_code, heard.out) == (7, b"last\n")


async def test_usage(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    outcome = await run(backend, asking("i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done"), heard)
    assert outcome.usage.source == "sampled"
    assert outcome.usage.cpu_seconds > 0
    assert outcome.usage.max_memory_bytes > 0


async def test_much_output(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    heard.keep = False
    await run(backend, asking("head -c 50000000 /dev/zero"), heard)
    assert heard.total == 50_000_000


@pytest.mark.parametrize("argv", [("nosuch",), ("/etc/passwd",)])
async def test_what_cannot_be_started(
    backend: DockerBackend, asking: Asking, heard: Heard, argv: tuple[str, ...]
) -> None:
    request = asking("")
    outcome = await run(backend, replace(request, command=replace(request.command, argv=argv)), heard)
    assert outcome.reason is ExitReason.START_FAILED
    assert argv[0] in outcome.message


async def test_an_image_that_is_nowhere(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    with pytest.raises(OperationFailed, match=r"127.0.0.1:1/nowhere:x cannot be pulled: .*refused") as caught:
        await run(backend, asking("true", image="127.0.0.1:1/nowhere:x"), heard)
    assert caught.value.retryable  # the registry may be available again in a minute


async def test_what_cannot_be_given_is_refused(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    with pytest.raises(SandboxUnavailable, match="landlock"):
        await run(backend, asking("true", require=frozenset({Layer.LANDLOCK})), heard)
    with pytest.raises(SandboxUnavailable, match="diskBytesPerSecond"):
        await run(backend, asking("true", Limits(disk_bytes_per_second=1 << 20)), heard)


@pytest.mark.timeout(180)
async def test_thirty_two_at_once(backend: DockerBackend, asking: Asking) -> None:
    many = [Heard() for _ in range(32)]
    going = [backend.run(asking(f"echo {n}"), one, cancel=asyncio.Event()) for n, one in enumerate(many)]
    outcomes = await asyncio.gather(*going)
    assert [outcome.exit_code for outcome in outcomes] == [0] * 32
    assert [one.out for one in many] == [f"{n}\n".encode() for n in range(32)]


async def test_a_released_container_is_adopted(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    request = asking("echo one; until [ -e /tmp/go ]; do sleep 0.1; done; echo two; echo wrong >&2; exit 5")
    first = asyncio.create_task(backend.run(request, heard, cancel=asyncio.Event()))
    await heard.begun(first)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert orjson.loads(docker("inspect", f"remit-{request.id}").stdout)[0]["State"]["Running"]
    again, handles = Heard(), []
    adopting = asyncio.create_task(backend.adopt(request, again, cancel=asyncio.Event(), on_found=handles.append))
    await again.begun(adopting)
    assert docker("exec", "-u", "65534", f"remit-{request.id}", "touch", "/tmp/go").returncode == 0
    outcome = await asyncio.wait_for(adopting, PATIENCE)
    assert outcome is not None
    assert (outcome.reason, outcome.exit_code) == (ExitReason.EXIT_CODE, 5)
    assert (again.out, again.err) == (b"one\ntwo\n", b"wrong\n")
    assert len(handles) == 1
    assert await backend.adopt(request, again, cancel=asyncio.Event(), on_found=handles.append) is None


async def test_the_time_before_it_was_adopted_counts(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    request = asking("echo one; while true; do sleep 0.1; done", timeout_seconds=600, grace_seconds=0)
    first = asyncio.create_task(backend.run(request, heard, cancel=asyncio.Event()))
    await heard.begun(first)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    taken_up = replace(request, timeout_seconds=2)
    outcome = await backend.adopt(taken_up, Heard(), cancel=asyncio.Event(), on_found=lambda handle: None)
    assert outcome is not None
    assert outcome.reason is ExitReason.TIMED_OUT


async def test_the_time_of_day_is_not_what_counts(
    backend: DockerBackend, asking: Asking, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator's own clock says that the attempt's time is over."""
    up, handles = [1000.0], list[Handle]()
    monkeypatch.setattr(backend, "_boot", lambda: up[0])
    request = asking("echo one; while true; do sleep 0.1; done", timeout_seconds=3600, grace_seconds=0)
    first = asyncio.create_task(
        backend.run(request, heard, cancel=asyncio.Event(), on_started=lambda handle: handles.append(handle))
    )
    await heard.begun(first)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert handles[0].begun <= 1000
    up[0] += 3600
    outcome = await backend.adopt(
        request, Heard(), cancel=asyncio.Event(), on_found=handles.append, recorded=handles[0]
    )
    assert outcome is not None
    assert outcome.reason is ExitReason.TIMED_OUT
    assert handles[1].begun == handles[0].begun


async def test_recover_leaves_nothing(backend: DockerBackend, asking: Asking, heard: Heard) -> None:
    request = asking("echo one; sleep 600")
    first = asyncio.create_task(backend.run(request, heard, cancel=asyncio.Event()))
    await heard.begun(first)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert await backend.recover(Handle(0, 0, "", container=f"remit-{request.id}"))


async def test_what_the_engine_does_not_start_is_not_left(
    backend: DockerBackend, asking: Asking, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = await backend._about_engine()

    async def without_init() -> Any:
        return {**about, "InitBinary": ""}

    monkeypatch.setattr(backend, "_about_engine", without_init)  # the init of Docker would itself report the failure
    request = asking("")
    outcome = await run(backend, replace(request, command=replace(request.command, argv=("nosuch",))), heard)
    assert outcome.reason is ExitReason.START_FAILED
    assert "nosuch" in outcome.message


@pytest.mark.parametrize("path", ["/workspace/a", "/tmp", "/etc", "/run/private"])
async def test_a_working_directory_is_not_made(backend: DockerBackend, asking: Asking, heard: Heard, path: str) -> None:
    request = asking("pwd")
    outcome = await run(backend, replace(request, confinement=replace(request.confinement, working_dir=path)), heard)
    assert outcome.reason is ExitReason.START_FAILED
    assert f"{path} is not there" in outcome.message
    assert heard.out == b""


@pytest.fixture
async def silent_registry() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Starts a registry that accepts connections and answers nothing. Yields the name of an image there, and an event
    that is set when it is requested."""
    asked, writers = asyncio.Event(), list[asyncio.StreamWriter]()

    def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        asked.set()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}/image:v1", asked
    finally:
        server.close()
        for writer in writers:
            writer.close()


@pytest.mark.parametrize("how", ["cancelled", "time is over", "stopped"])
async def test_a_pull_that_hangs_does_not_delay_others(
    asking: Asking, silent_registry: tuple[str, asyncio.Event], how: str
) -> None:
    """The engine allows an hour for the response, so a caller that waited for it would exceed this test's timeout."""
    engine, (image, asked) = Engine(at_once=1, answer_seconds=3600), silent_registry
    request = asking("true", image=image, timeout_seconds=2 if how == "time is over" else 3600)
    cancel = asyncio.Event()
    doing = asyncio.create_task(DockerBackend(engine).run(request, Heard(), cancel=cancel))
    async with asyncio.timeout(PATIENCE):
        await asked.wait()
        assert (await engine.call(lambda client: client.version()))["Version"], "it holds no place with the engine"
        if how == "cancelled":
            cancel.set()
        if how == "stopped":
            doing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await doing
        else:
            outcome = await doing
            expected = ExitReason.CANCELLED if how == "cancelled" else ExitReason.TIMED_OUT
            assert outcome.reason is expected
            assert how == "cancelled" or f"before image {image} was pulled" in outcome.message
        await engine.close()
