"""Tests standard input of a container from a file of a volume, on a real Docker engine."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
import shutil
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dockers import Heard, docker, make_image, needs_docker, remove_image
from remit.backends.base import AttemptRequest, Command, Handle
from remit.backends.docker.backend import DockerBackend
from remit.backends.docker.engine import Engine
from remit.backends.docker.folders import Staging
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import InvalidInput, OutcomeUnknown, SandboxUnavailable
from remit.sandbox import Confinement, HostMount, Identities, Limits

PATIENCE = 90
MIB = 1 << 20
OWNER = 71_234 if os.geteuid() == 0 else os.geteuid()
ATTEMPTS = Identities(2_000_000, 1000)
Asking = Callable[..., AttemptRequest]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    needs_docker()
    tag = make_image()
    yield tag
    remove_image(tag)


@pytest.fixture
def src() -> Iterator[Path]:
    top = Path(tempfile.mkdtemp(prefix="remit-stdin-"))
    top.chmod(0o755)
    (top / "src").mkdir(mode=0o700)
    os.chown(top / "src", OWNER, OWNER)
    yield top / "src"
    shutil.rmtree(top)


@pytest.fixture
async def backend(image: str, src: Path) -> AsyncIterator[DockerBackend]:
    engine = Engine()
    yield DockerBackend(engine, staging=Staging(src.parent / "mounts", [str(src.parent / "state")], ATTEMPTS))
    await engine.close()


@pytest.fixture
def asking(image: str, src: Path) -> Iterator[Asking]:
    """Provides requests for `sh -c SCRIPT` that read `file`. Asserts that nothing of them remains on the engine."""
    ids: list[str] = []

    def request(script: str, path: str = "file", **rest: Any) -> AttemptRequest:
        ids.append(f"{uuid.uuid4()}-1")
        env = {"REMIT_TASK_NAME": "t", "REMIT_TASK_NAMESPACE": "ns"}
        confinement = Confinement(
            Limits(disk_bytes=4 * MIB),
            stdin_file=HostMount("", str(src), str(src), path),
            mounts=rest.pop("mounts", ()),
        )
        command = Command(("sh", "-c", script), "", env)
        return AttemptRequest(ids[-1], command, confinement, 60, image=image, grace_seconds=rest.pop("grace", 0.2))

    yield request
    left = [name for id_ in ids if docker("inspect", name := f"remit-{id_}").returncode == 0]
    docker("rm", "-fv", *left)
    assert left == [], "containers were left"


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    os.chown(path, OWNER, OWNER)
    return path


async def run(backend: DockerBackend, request: AttemptRequest, **more: Any) -> tuple[Outcome, Heard]:
    heard = more.pop("heard", Heard())
    cancel = more.pop("cancel", asyncio.Event())
    return await asyncio.wait_for(backend.run(request, heard, cancel=cancel, **more), PATIENCE), heard


async def no_thread_is_left() -> None:
    async with asyncio.timeout(60):
        while any(thread.name == "stdin" for thread in threading.enumerate()):
            await asyncio.sleep(0.01)


async def heard_begin(heard: Heard, running: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while b"begun" not in heard.out:
            assert not running.done(), running
            await asyncio.sleep(0.01)


async def test_the_program_reads_the_file_and_an_end(backend: DockerBackend, asking: Asking, src: Path) -> None:
    """The program runs as nobody: it receives the bytes without permissions on the file."""
    content = os.urandom(3 * MIB) + b"end"
    written(src / "file", content)
    handles: list[Handle] = []
    outcome, heard = await run(backend, asking("id -u >&2; cat"), on_started=handles.append)
    assert outcome.reason is ExitReason.COMPLETED, outcome
    assert hashlib.sha256(heard.out).digest() == hashlib.sha256(content).digest()
    assert heard.err == b"65534\n"
    assert [handle.feeding for handle in handles] == [True, False]
    await no_thread_is_left()


async def test_an_empty_file(backend: DockerBackend, asking: Asking, src: Path) -> None:
    written(src / "file", b"")
    outcome, heard = await run(backend, asking("wc -c"))
    assert (outcome.reason, heard.out.split()) == (ExitReason.COMPLETED, [b"0"])


async def test_what_is_refused_is_before_anything_runs(backend: DockerBackend, asking: Asking, src: Path) -> None:
    (src / "out").symlink_to("/etc/passwd")
    os.mkfifo(src / "pipe")
    (src.parent / "state").mkdir()
    started: list[Handle] = []
    for path, why in {"out": "leads out of", "pipe": "is a pipe", "missing": "is not there"}.items():
        with pytest.raises(InvalidInput, match=f"^spec.stdinFrom.volume: .*{why}"):
            await run(backend, asking("true", path), on_started=started.append)
    engine = Engine()
    with pytest.raises(SandboxUnavailable, match=r"cannot read spec\.stdinFrom"):
        await run(DockerBackend(engine), asking("true"), on_started=started.append)
    await engine.close()
    assert started == []


async def test_a_program_that_does_not_read_is_cancelled(backend: DockerBackend, asking: Asking, src: Path) -> None:
    """The rest of the file is not read: the buffers in between are filled, and then reading stops."""
    written(src / "file", b"")
    os.truncate(src / "file", 64 * MIB)
    cancel, heard = asyncio.Event(), Heard()
    running = asyncio.create_task(run(backend, asking("echo begun; sleep 600"), cancel=cancel, heard=heard))
    await heard_begin(heard, running)
    cancel.set()
    outcome, _ = await running
    assert outcome.reason == ExitReason.CANCELLED
    await no_thread_is_left()


async def test_a_program_that_wants_no_more_of_it(backend: DockerBackend, asking: Asking, src: Path) -> None:
    written(src / "file", b"first\n" + bytes(8 * MIB))
    outcome, heard = await run(backend, asking("head -n1"))
    assert (outcome.reason, heard.out) == (ExitReason.COMPLETED, b"first\n")
    await no_thread_is_left()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_a_file_that_becomes_shorter_fails_and_shows_no_end(
    backend: DockerBackend, asking: Asking, src: Path
) -> None:
    written(src / "file", b"")
    os.truncate(src / "file", 64 * MIB)
    heard = Heard()
    script = "trap '' TERM; head -c1 >/dev/null; echo begun; until [ -e /src/go ]; do sleep 0.02; done; cat >&2; echo e"
    request = asking(script, mounts=(HostMount("/src", str(src), str(src)),))
    running = asyncio.create_task(run(backend, request, heard=heard))
    await heard_begin(heard, running)
    os.truncate(src / "file", 16)
    (src / "go").touch()
    with pytest.raises(OutcomeUnknown, match=r"became shorter while it was read, by \d+ bytes"):
        await running
    assert heard.out == b"begun\n"
    await no_thread_is_left()


async def test_one_that_is_let_go_of_half_fed_is_ended(backend: DockerBackend, asking: Asking, src: Path) -> None:
    """No later operator can continue its input, and closing the input would look like a regular end of the file."""
    written(src / "file", b"")
    os.truncate(src / "file", 64 * MIB)
    heard, handles = Heard(), []
    request = asking("echo begun; sleep 600")
    running = asyncio.create_task(run(backend, request, heard=heard, on_started=handles.append))
    await heard_begin(heard, running)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert docker("inspect", f"remit-{request.id}").returncode != 0
    again = backend.adopt(request, Heard(), cancel=asyncio.Event(), on_found=handles.append, recorded=handles[-1])
    assert await again is None
    assert [handle.feeding for handle in handles] == [True]


async def test_who_adopts_goes_on_with_what_has_its_input_and_ends_the_rest(
    backend: DockerBackend, asking: Asking, src: Path
) -> None:
    written(src / "file", b"all of it")
    for feeding in (False, True):
        heard, handles = Heard(), []
        fed = asyncio.Event()

        def record(handle: Handle, handles: list[Handle] = handles, fed: asyncio.Event = fed) -> None:
            handles.append(handle)
            if not handle.feeding:
                fed.set()

        request = asking("cat; echo begun; sleep 2; echo done")
        running = asyncio.create_task(run(backend, request, heard=heard, on_started=record))
        await heard_begin(heard, running)
        await fed.wait()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        # The second container is one whose operator was killed before it recorded the handle.
        recorded = handles[0] if feeding else handles[-1]
        again, found = Heard(), []
        outcome = await backend.adopt(request, again, cancel=asyncio.Event(), on_found=found.append, recorded=recorded)
        if feeding:
            assert (outcome, found) == (None, [])
        else:
            assert outcome is not None and outcome.reason is ExitReason.COMPLETED
            assert again.out == b"all of itbegun\ndone\n"


async def test_a_large_file_is_never_in_memory(backend: DockerBackend, asking: Asking, src: Path) -> None:
    written(src / "file", b"x")
    await run(backend, asking("wc -c"))
    os.truncate(src / "file", 200 * MIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome, heard = await run(backend, asking("wc -c"))
    assert (outcome.reason, heard.out.split()) == (ExitReason.COMPLETED, [str(200 * MIB).encode()])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 32 * MIB, f"{grown} KiB"
