"""Tests that files of attempts in containers are kept, with a real Docker engine and the real store."""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.artifacts import record

from dockers import Heard, docker, make_image, needs_docker, remove_image
from remit.backends.base import AttemptRequest, Command
from remit.backends.docker.backend import DockerBackend
from remit.backends.docker.engine import Engine
from remit.backends.filetree import DescriptorTree, FileTree
from remit.backends.outcome import ExitReason, Outcome
from remit.execution.artifacts.collecting import WantedArtifact, WantedResult, collector
from remit.execution.artifacts.folderstore import FolderStore
from remit.execution.artifacts.store import ArtifactStore
from remit.execution.artifacts.stored import StoredFile
from remit.sandbox import Confinement, EmptyMount, Limits

PATIENCE = 90
MIB = 1 << 20


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    needs_docker()
    tag = make_image(changes=["VOLUME /declared"])
    yield tag
    remove_image(tag)


@pytest.fixture
async def backend(image: str) -> AsyncIterator[DockerBackend]:
    engine = Engine()
    yield DockerBackend(engine)
    await engine.close()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return FolderStore(tmp_path / "artifacts")


Asking = Callable[..., AttemptRequest]


@pytest.fixture
def asking(image: str, store: ArtifactStore) -> Iterator[Asking]:
    """Provides requests for `sh -c SCRIPT` whose files that match `patterns` are kept. Asserts that nothing remains on
    the engine."""
    ids: list[str] = []
    volumes = set(docker("volume", "ls", "-q").stdout.split())

    def request(script: str, *patterns: str, results: tuple[str, ...] = (), **rest: Any) -> AttemptRequest:
        ids.append(f"{uuid.uuid4()}-1")
        wanted = [
            WantedArtifact(f"a{number}", pattern, rest.pop("most", MIB), always=True)
            for number, pattern in enumerate(patterns)
        ]
        read = [WantedResult(path.rpartition("/")[2], path) for path in results]
        collect = collector(store, lambda kept: record(store, "ns", "t", "u", kept), wanted, read)
        confinement = Confinement(rest.pop("limits", Limits(disk_bytes=4 * MIB)), mounts=rest.pop("mounts", ()))
        env = {"REMIT_TASK_NAME": "t", "REMIT_TASK_NAMESPACE": "ns"}
        made = AttemptRequest(ids[-1], Command(("sh", "-c", script), "", env), confinement, 60, image=image)
        return replace(made, **{"collector": collect, **rest})

    yield request
    names = [name for id_ in ids for name in (f"remit-{id_}", f"remit-{id_}-network")]
    left = [name for name in names if docker("inspect", name).returncode == 0]
    docker("rm", "-fv", *left)
    assert left == [], "containers were left"
    mine = set(docker("volume", "ls", "-q").stdout.split()) - volumes
    unused = set(docker("volume", "ls", "-q", "--filter", "dangling=true").stdout.split())
    assert not mine & unused, "volumes were left"


async def run(backend: DockerBackend, request: AttemptRequest) -> Outcome:
    return await asyncio.wait_for(backend.run(request, Heard(), cancel=asyncio.Event()), PATIENCE)


def kept(store: ArtifactStore) -> dict[str, dict[str, bytes]]:
    return {
        artifact.name: {file.path: _content(store, file) for file in artifact.files}
        for artifact in store.artifacts("ns", "t")
    }


def _content(store: ArtifactStore, file: StoredFile) -> bytes:
    with store.open(file) as source:
        return source.read()


async def test_what_is_left_is_kept(backend: DockerBackend, asking: Asking, store: ArtifactStore) -> None:
    script = (
        "mkdir -p dist/sub; echo one > dist/a.whl; echo two > dist/sub/b.whl; echo no > dist/c; chmod +x dist/a.whl;"
        " echo 1.2 > version; echo in > /data/x; echo deep > /workspace/cache/y; id -u > /declared/x"
    )
    mounts = (EmptyMount("/data", MIB), EmptyMount("/workspace/cache"))
    request = asking(
        script,
        "/workspace/dist/**/*.whl",
        "/data",
        "/workspace/cache/y",
        results=("/workspace/version",),
        mounts=mounts,
    )
    outcome = await run(backend, request)
    assert (outcome.reason, outcome.results) == (ExitReason.COMPLETED, {"version": "1.2"}), outcome.message
    assert kept(store) == {
        "a0": {"a.whl": b"one\n", "sub/b.whl": b"two\n"},
        "a1": {"x": b"in\n"},
        "a2": {"y": b"deep\n"},
    }
    assert [file.executable for file in store.artifacts("ns", "t")[0].files] == [True, False]
    assert outcome.artifacts[0].files == 2


async def test_what_failed_leaves_too(backend: DockerBackend, asking: Asking, store: ArtifactStore) -> None:
    outcome = await run(backend, asking("echo why > log; exit 3", "/workspace/log"))
    assert (outcome.exit_code, kept(store)) == (3, {"a0": {"log": b"why\n"}})
    request = asking(
        "echo slow > log; while true; do sleep 0.1; done", "/workspace/log", timeout_seconds=2, grace_seconds=0
    )
    assert (await run(backend, request)).reason is ExitReason.TIMED_OUT
    assert kept(store) == {"a0": {"log": b"slow\n"}}


async def test_what_does_not_exist(backend: DockerBackend, asking: Asking) -> None:
    assert (await run(backend, asking("true", "/workspace/x"))).reason is ExitReason.ARTIFACT_MISSING
    assert (await run(backend, asking("true", "/workspace/x/y/*"))).reason is ExitReason.ARTIFACT_MISSING
    assert (await run(backend, asking("nosuch; exit 127", "/workspace/x"))).reason is ExitReason.EXIT_CODE
    request = asking("")
    command = replace(request.command, argv=("nosuch",))
    assert (await run(backend, replace(request, command=command))).reason is ExitReason.START_FAILED


async def test_the_size_of_the_workspace_is_held(backend: DockerBackend, asking: Asking, store: ArtifactStore) -> None:
    request = asking("dd if=/dev/zero of=big bs=1000000 count=8", "/workspace/*", limits=Limits(disk_bytes=MIB))
    assert (await run(backend, request)).reason is ExitReason.DISK_EXCEEDED
    (content,) = kept(store)["a0"].values()
    assert 0 < len(content) <= MIB


_HOSTILE = (
    "ln -s /etc/passwd link.txt; ln -s / up; ln -s .. dist; ln -s /etc etc; mkfifo pipe.txt; mknod dev.txt c 1 3;"
    " echo mine > a.txt; ln a.txt b.txt; mkdir d; ln a.txt d/c.txt; ln /etc/passwd hard.txt;"
    " printf new > 'new\nline.txt'; printf odd > \"$(printf 'esc\\033.txt')\"; printf t > 'tail '; printf l > "
    + "l" * 200
    + "; true"
)


async def test_only_regular_files_and_no_links(backend: DockerBackend, asking: Asking, store: ArtifactStore) -> None:
    outcome = await run(backend, asking(_HOSTILE, "/workspace/**"))
    assert outcome.reason is ExitReason.COMPLETED, outcome.message
    assert kept(store)["a0"] == {
        "a.txt": b"mine\n",
        "b.txt": b"mine\n",
        "d/c.txt": b"mine\n",
        "new\nline.txt": b"new",
        "esc\x1b.txt": b"odd",
        "tail ": b"t",
        "l" * 200: b"l",
    }
    for pattern in ("/workspace/up/etc/passwd", "/workspace/etc/passwd", "/workspace/link.txt", "/workspace/dist/*"):
        outcome = await run(backend, asking(_HOSTILE, pattern))
        assert outcome.reason is ExitReason.ARTIFACT_MISSING, pattern


@pytest.mark.parametrize(
    ("script", "pattern", "reason", "why"),
    [
        ("dd if=/dev/zero of=s bs=1 count=1 seek=999999999", "/workspace/s", ExitReason.ARTIFACT_TOO_LARGE, "maxBytes"),
        ("dd if=/dev/zero of=s bs=1 count=1 seek=999999999999; echo > x.t", "/workspace/*.t", ExitReason.ARTIFACT_UNREADABLE, "folder of its own"),  # noqa: E501
        ("printf x > \"$(printf 'a\\377.t')\"", "/workspace/*.t", ExitReason.ARTIFACT_UNREADABLE, "not UTF-8"),
        ("echo > x.t; chmod 0 x.t", "/workspace/*.t", ExitReason.ARTIFACT_UNREADABLE, "Permission denied"),
        ("mkdir d; echo > d/x.t; chmod 0 d", "/workspace/d/*.t", ExitReason.ARTIFACT_UNREADABLE, "Permission denied"),
        ("d=.; i=0; while [ $i -lt 70 ]; do d=$d/d; i=$((i+1)); done; mkdir -p $d", "/workspace/**", ExitReason.ARTIFACT_UNREADABLE, "deep in each other"),  # noqa: E501
    ],
)  # fmt: skip
async def test_what_cannot_be_kept(
    backend: DockerBackend,
    asking: Asking,
    store: ArtifactStore,
    script: str,
    pattern: str,
    reason: ExitReason,
    why: str,
) -> None:
    outcome = await run(backend, asking(script, pattern))
    assert outcome.reason is reason, outcome.message
    assert why in outcome.message
    assert kept(store) == {}


async def test_the_same_is_found_as_by_descriptor(backend: DockerBackend, asking: Asking, tmp_path: Path) -> None:
    script = (
        "for d in . a a/b a/b/ab 'x y'; do mkdir -p \"$d\"; for f in 1.t '*.t' 'ü.t' -rf; do echo $f > \"$d/$f\"; done;"
        " done;"
        " ln -s a s; ln a/1.t a/2.t"
    )
    patterns = [
        f"/workspace{rest}" for rest in ("", "/**", "/*.t", "/**/*.t", "/a", "/a/**/ab/*", "/?/?/*", "/x y/?.t", "/s/*")
    ]
    place = tmp_path / "workspace"
    place.mkdir()
    made = await asyncio.create_subprocess_exec("sh", "-c", script, cwd=place)
    assert await made.wait() == 0
    seen: dict[str, set[tuple[str, int]]] = {}

    def collect(tree: FileTree, outcome: Outcome) -> Outcome:
        seen.update({pattern: {(file.path, file.size) for file in tree.find(pattern)} for pattern in patterns})
        return outcome

    assert (await run(backend, asking(script, collector=collect))).reason is ExitReason.COMPLETED
    descriptor = os.open(place, os.O_PATH | os.O_DIRECTORY)
    try:
        here = DescriptorTree({"/workspace": descriptor})
        assert seen == {pattern: {(file.path, file.size) for file in here.find(pattern)} for pattern in patterns}
        assert seen["/workspace/**/*.t"]
    finally:
        os.close(descriptor)


class Halting:
    """Blocks after a number of files was found, until no caller waits for it any more."""

    def __init__(self, tree: FileTree, steps: int, halted: Callable[[], None], go_on: threading.Event) -> None:
        self._tree, self._left, self._halted, self._go_on = tree, steps, halted, go_on

    def find(self, pattern: str) -> Iterator[Any]:
        for file in self._tree.find(pattern):
            if self._left == 0:
                self._halted()
                self._go_on.wait(PATIENCE)
            self._left -= 1
            yield file
        if self._left == 0:
            self._halted()
            self._go_on.wait(PATIENCE)
            for _ in self._tree.find(pattern):
                pass


@pytest.mark.parametrize("steps", [None, 0, 1, 3])
async def test_what_an_operator_leaves_half_the_next_one_keeps(
    backend: DockerBackend, asking: Asking, store: ArtifactStore, steps: int | None
) -> None:
    """`steps` None: the operator stops while the program still runs."""
    script = "echo ready; for f in 1 2 3; do head -c 2000000 /dev/zero > $f; done" + (
        "; sleep 2" if steps is None else ""
    )
    request, heard, go_on = (
        asking(script, "/workspace/*", most=8 * MIB, limits=Limits(disk_bytes=8 * MIB)),
        Heard(),
        threading.Event(),
    )
    halted, over, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    def collect(tree: FileTree, outcome: Outcome) -> Outcome:
        assert request.collector
        assert steps is not None
        try:
            return request.collector(
                Halting(tree, steps, lambda: loop.call_soon_threadsafe(halted.set), go_on), outcome
            )
        finally:
            loop.call_soon_threadsafe(over.set)

    first = asyncio.create_task(backend.run(replace(request, collector=collect), heard, cancel=asyncio.Event()))
    async with asyncio.timeout(PATIENCE):
        await (heard.came if steps is None else halted).wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        go_on.set()
        if steps is not None:
            await over.wait()
    assert kept(store) == {}
    again = DockerBackend(backend._engine)
    outcome = await again.adopt(request, Heard(), cancel=asyncio.Event(), on_found=lambda _: None)
    assert outcome is not None
    assert outcome.reason is ExitReason.COMPLETED, outcome.message
    assert kept(store) == {"a0": dict.fromkeys("123", bytes(2_000_000))}


async def test_what_holds_it_is_gone(backend: DockerBackend, asking: Asking, store: ArtifactStore) -> None:
    """This happens after a restart of the engine: a read would then find an empty folder."""
    request, heard = asking("echo ready; echo x > x; while [ ! -e go ]; do sleep 0.1; done", "/workspace/*"), Heard()
    running = asyncio.create_task(backend.run(request, heard, cancel=asyncio.Event()))
    async with asyncio.timeout(PATIENCE):
        await heard.begun(running)
        assert docker("kill", f"remit-{request.id}-network").returncode == 0
        assert docker("exec", f"remit-{request.id}", "touch", "/workspace/go").returncode == 0
        outcome = await running
    assert outcome.reason is ExitReason.ARTIFACT_UNREADABLE, outcome.message
    assert "it is gone" in outcome.message
    assert outcome.retryable
    assert kept(store) == {}
