"""Tests mounts of folders of the host, empty folders and files in containers of a real Docker engine."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dockers import Heard, docker, make_image, needs_docker, remove_image
from remit.backends.base import AttemptRequest, Command
from remit.backends.docker.backend import DockerBackend
from remit.backends.docker.engine import Engine
from remit.backends.docker.folders import Staging
from remit.backends.filetree import FileTree
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import InvalidInput, SandboxUnavailable
from remit.sandbox import Confinement, EmptyMount, HostMount, Identities, Limits, Mount
from remit.sandbox.staging import copy_mount, stage_at, unstage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
PATIENCE = 90
MIB = 1 << 20
OWNER = 71_234
ATTEMPTS = Identities(2_000_000, 1000)
_EXCHANGE = 2


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    needs_docker()
    tag = make_image(changes=["VOLUME /srv/declared"])
    yield tag
    remove_image(tag)


@pytest.fixture
def top() -> Iterator[Path]:
    """Provides a folder that every user may enter."""
    path = Path(tempfile.mkdtemp(prefix="remit-mounts-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def src(top: Path) -> Path:
    return folder(top / "src", {"file": "of the host", "sub/deep": "deep"})


@pytest.fixture
async def backend(image: str, top: Path) -> AsyncIterator[DockerBackend]:
    engine = Engine()
    staging = Staging(top / "mounts", identities=ATTEMPTS)
    yield DockerBackend(engine, staging=staging)
    await engine.close()
    assert list(staging.folder.iterdir() if staging.folder.is_dir() else []) == [], "mounts were left"
    assert str(top) not in Path("/proc/self/mountinfo").read_text()


def folder(path: Path, files: dict[str, str] | None = None, owner: int = OWNER) -> Path:
    path.mkdir()
    for name, content in (files or {}).items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(content)
    for each in (path, *path.rglob("*")):
        os.chown(each, owner, owner)
    return path


def mount(path: Path, at: str = "/src", **more: Any) -> HostMount:
    return HostMount(at, str(path.parent), str(path), **more)


def writable(path: Path, at: str = "/src", **more: Any) -> HostMount:
    return mount(path, at, read_only=False, **more)


Asking = Callable[..., AttemptRequest]


@pytest.fixture
def asking(image: str) -> Iterator[Asking]:
    """Provides requests for `sh -c SCRIPT`. Asserts that nothing of them remains on the engine."""
    ids: list[str] = []
    volumes = set(docker("volume", "ls", "-q").stdout.split())

    def request(script: str, *mounts: Mount, **rest: Any) -> AttemptRequest:
        ids.append(f"{uuid.uuid4()}-1")
        env = {"REMIT_TASK_NAME": "t", "REMIT_TASK_NAMESPACE": "ns"}
        confinement = Confinement(
            Limits(disk_bytes=4 * MIB), working_dir=rest.pop("inside", "/workspace"), mounts=mounts
        )
        made = AttemptRequest(ids[-1], Command(("sh", "-c", script), "", env), confinement, 60, image=image)
        return replace(made, **rest)

    yield request
    names = [f"remit-{id_}{more}" for id_ in ids for more in ("", "-network", "-files")]
    left = [name for name in names if docker("inspect", name).returncode == 0]
    docker("rm", "-fv", *left)
    assert left == [], "containers were left"
    mine = set(docker("volume", "ls", "-q").stdout.split()) - volumes
    unused = set(docker("volume", "ls", "-q", "--filter", "dangling=true").stdout.split())
    assert not mine & unused, "volumes were left"


async def run(backend: DockerBackend, request: AttemptRequest) -> tuple[Outcome, Heard]:
    heard = Heard()
    return await asyncio.wait_for(backend.run(request, heard, cancel=asyncio.Event()), PATIENCE), heard


async def said(backend: DockerBackend, request: AttemptRequest) -> list[str]:
    outcome, heard = await run(backend, request)
    assert outcome.reason is ExitReason.COMPLETED, (outcome.message, heard.err)
    return heard.out.decode().splitlines()


async def test_files_are_read_and_written_as_their_owner(backend: DockerBackend, asking: Asking, src: Path) -> None:
    (src / "file").chmod(0o600)
    script = "id -u; id -g; cat /src/file; echo; echo made > /src/made; stat -c %u /src/made; pwd"
    told = await said(backend, asking(script, writable(src), inside="/src"))
    assert told == [str(OWNER), str(OWNER), "of the host", str(OWNER), "/src"]
    assert (src / "made").read_text() == "made\n"
    assert (src / "made").stat().st_uid == OWNER


async def test_what_is_only_to_be_read_is_not_written(backend: DockerBackend, asking: Asking, src: Path) -> None:
    """This also applies to mounts below the folder, which an engine's own `ro` does not make read-only."""
    (src / "disk").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "none", src / "disk"], check=True)
    try:
        script = "cat /src/file; echo x > /src/x; echo x > /src/disk/x; echo x > /src/sub/x"
        _, heard = await run(backend, asking(script, mount(src)))
        assert heard.out == b"of the host"
        assert heard.err.count(b"Read-only file system") == 3
    finally:
        subprocess.run(["umount", src / "disk"], check=True)


async def test_root_and_devices_of_a_mounted_folder_are_without_effect(
    backend: DockerBackend, asking: Asking, src: Path
) -> None:
    shutil.copy("/bin/busybox", src / "id")
    (src / "id").chmod(0o6755)
    os.mknod(src / "memory", 0o20666, os.makedev(1, 1))
    (src / "memory").chmod(0o666)
    for at in (mount(src), writable(src)):
        outcome, heard = await run(backend, asking("/src/id -u; id -u; head -c 1 /src/memory", at))
        assert heard.out.split() == [str(OWNER).encode()] * 2
        assert b"denied" in heard.err or b"not permitted" in heard.err
        assert outcome.exit_code


async def test_folders_within_folders(backend: DockerBackend, asking: Asking, src: Path, top: Path) -> None:
    other = folder(top / "other", {"x": "other"})
    (src / "in").mkdir()
    (src / "tmp").mkdir()
    script = "cat /src/in/x; echo w > /src/in/y; echo t > /src/tmp/t; cat /src/tmp/t; echo n > /src/n"
    at = (mount(src), writable(other, "/src/in"), EmptyMount("/src/tmp", MIB))
    _, heard = await run(backend, asking(script, *at))
    assert heard.out == b"othert\n"
    assert b"/src/n: Read-only" in heard.err
    assert (other / "y").read_text() == "w\n"
    assert sorted(each.name for each in src.iterdir()) == ["file", "in", "sub", "tmp"], "nothing is made on the host"


async def test_an_inner_mount_needs_a_place_in_a_mounted_folder(
    backend: DockerBackend, asking: Asking, src: Path, top: Path
) -> None:
    """This does not depend on what the image has at that path, such as the folder `/data/in`."""
    (src / "way").symlink_to("sub")
    other = folder(top / "other")
    for place in ("/data/in", "/data/sub/in", "/data/file", "/data/way"):
        for inner in (mount(other, place), EmptyMount(place)):
            with pytest.raises(InvalidInput, match=f"{place}.*there is no folder"):
                await run(backend, asking("true", writable(src, "/data"), inner))
    assert sorted(each.name for each in src.rglob("*")) == ["deep", "file", "sub", "way"]


async def test_an_image_makes_nothing_in_a_mounted_folder(backend: DockerBackend, asking: Asking, src: Path) -> None:
    with pytest.raises(InvalidInput, match="the image has a volume at /srv/declared"):
        await run(backend, asking("true", writable(src, "/srv")))
    assert sorted(each.name for each in src.iterdir()) == ["file", "sub"]


@pytest.fixture(scope="module")
def linked() -> Iterator[str]:
    """Provides an image with links into the path where a task mounts `/src`."""
    needs_docker()
    links = {"link": "src", "to": "/src/made", "srv/deep": "../to", "var": "run", "mnt/volume": "/src/declared"}
    tag = make_image(changes=["VOLUME /mnt/volume"], links=links, folders={"srv": 0o755, "mnt": 0o755})
    yield tag
    remove_image(tag)


@pytest.fixture(scope="module")
def its_etc_is_a_link() -> Iterator[str]:
    """Provides an image in which `/etc` is a link, so that the engine would create its own files elsewhere."""
    needs_docker()
    tag = make_image(links={"sbin": "/src/deep/sbin"})
    yield tag
    remove_image(tag)


@pytest.mark.parametrize(
    ("place", "leads"),
    [
        ("/to", "/src/made"),
        ("/link/made", "/src/made"),
        ("/srv/deep", "/src/made"),
        ("/srv/deep/on", "/src/made/on"),
        ("/var/app", "/run/app"),
    ],
)
@pytest.mark.parametrize("kind", ["host", "empty", "file"])
@pytest.mark.no_cover
async def test_a_link_of_an_image_leads_no_engine_into_a_mounted_folder(
    backend: DockerBackend, asking: Asking, src: Path, top: Path, linked: str, place: str, leads: str, kind: str
) -> None:
    mounts: tuple[Mount, ...] = (writable(src),)
    more = {"host": mount(folder(top / "other"), place), "empty": EmptyMount(place)}
    files = {f"{place}/key": b"secret"} if kind == "file" else {}
    mounts = (*mounts, more[kind]) if kind in more else mounts
    with pytest.raises(InvalidInput, match=f"{place}.*the image {linked} has a link .*{leads}"):
        await run(backend, asking("true", *mounts, files=files, image=linked))
    assert sorted(each.name for each in src.rglob("*")) == ["deep", "file", "sub"], "the engine made it on the host"


async def test_links_at_places_that_an_image_or_an_engine_chooses_are_refused(
    backend: DockerBackend, asking: Asking, src: Path, linked: str, its_etc_is_a_link: str
) -> None:
    for image, place in ((linked, "/mnt/volume"), (its_etc_is_a_link, "/sbin/docker-init")):
        with pytest.raises(InvalidInput, match=f"{place}.*in the mounted folder"):
            await run(backend, asking("true", writable(src), image=image))
    assert sorted(each.name for each in src.rglob("*")) == ["deep", "file", "sub"], "the engine made it on the host"


async def test_links_that_lead_elsewhere_are_left_alone(
    backend: DockerBackend, asking: Asking, src: Path, linked: str
) -> None:
    assert await said(backend, asking("echo x > /var/app/x; cat /run/app/x", EmptyMount("/var/app"), image=linked)) == [
        "x"
    ]
    # An engine does not create a file in that folder through the link.
    with pytest.raises(InvalidInput, match="leads to /run/app"):
        await run(backend, asking("true", files={"/var/app/key": b"1"}, image=linked))


async def test_a_link_leads_nowhere_that_was_not_opened(
    backend: DockerBackend, asking: Asking, src: Path, top: Path
) -> None:
    folder(top / "secret", {"key": "secret"})
    (src / "out").symlink_to("../secret")
    with pytest.raises(InvalidInput, match="leads out of"):
        await run(backend, asking("true", mount(src, sub_path="out")))
    with pytest.raises(InvalidInput, match="is not there"):
        await run(backend, asking("true", mount(src, sub_path="none")))
    with pytest.raises(InvalidInput, match="never mounted"):
        await run(backend, asking("true", HostMount("/src", "/run", "/run")))


@pytest.mark.no_cover
async def test_a_folder_that_is_swapped_meanwhile_is_never_another(
    backend: DockerBackend, asking: Asking, top: Path
) -> None:
    """The owner of the parent folder swaps names continuously."""
    way = folder(top / "way")
    folder(way / "real", {"file": "mine"})
    folder(top / "secret", {"file": "secret"}, owner=0)
    (way / "real2").symlink_to("../secret")
    over, swaps = threading.Event(), [0]

    def swap() -> None:
        libc = ctypes.CDLL(None)
        one, two = os.fsencode(way / "real"), os.fsencode(way / "real2")
        while not over.wait(0.0002):
            assert libc.renameat2(-100, one, -100, two, _EXCHANGE) == 0
            swaps[0] += 1

    thread = threading.Thread(target=swap)
    thread.start()
    seen, refused = [], 0
    try:
        while len(seen) < 4 or not refused:
            try:
                seen += await said(
                    backend, asking("cat /src/file; echo", HostMount("/src", str(way), str(way / "real")))
                )
            except InvalidInput:
                refused += 1
    finally:
        over.set()
        thread.join()
    assert set(seen) == {"mine"}
    assert swaps[0] > 100


async def test_one_user_for_all_that_is_written(backend: DockerBackend, asking: Asking, src: Path, top: Path) -> None:
    other = folder(top / "other", owner=OWNER + 1)
    roots = folder(top / "roots", owner=0)
    with pytest.raises(InvalidInput, match="cannot write to"):
        await run(backend, asking("true", writable(src), writable(other, "/other")))
    with pytest.raises(InvalidInput, match="no task runs as root"):
        await run(backend, asking("true", writable(roots)))
    roots.chmod(0o777)
    assert await said(backend, asking("id -u", writable(roots, run_as_user=OWNER))) == [str(OWNER)]


async def test_a_workspace_follows_its_user(backend: DockerBackend, asking: Asking, top: Path) -> None:
    state = top / "state"
    state.mkdir(mode=0o700)
    data = folder(state / "data", {"old": "kept"}, owner=0)
    data.chmod(0o700)
    at = writable(data, "/cache", own=True, internal=True)
    script = "cat /cache/old; echo; echo 1 >> /cache/new; wc -l < /cache/new; id -u"
    kept, lines, user = await said(backend, asking(script, at))
    assert (kept, lines.strip()) == ("kept", "1")
    assert ATTEMPTS.first <= int(user) < ATTEMPTS.first + ATTEMPTS.count
    kept, lines, again = await said(backend, asking(script, at))
    assert (kept, lines.strip(), again) == ("kept", "2", user)


async def test_an_empty_folder_has_the_size_that_it_is_given(backend: DockerBackend, asking: Asking) -> None:
    script = "dd if=/dev/zero of=/e/x bs=1000 count=2000; dd if=/dev/zero of=/f/x bs=1000 count=2000; wc -c < /f/x"
    outcome, heard = await run(backend, asking(script, EmptyMount("/e", MIB), EmptyMount("/f")))
    assert outcome.reason is ExitReason.COMPLETED
    assert heard.out.split() == [b"2000000"]
    assert b"No space left" in heard.err


async def test_files_of_configuration(backend: DockerBackend, asking: Asking, src: Path) -> None:
    files = {"/etc/app/a": b"1", "/etc/app/deep/b": b"2", "/workspace/conf/c": b"3"}
    script = "cat /etc/app/a /etc/app/deep/b /workspace/conf/c; stat -c %u:%a /etc/app/a; echo > y; cat /etc/passwd"
    told = await said(backend, asking(script, files=files))
    assert told[:2] == ["12365534:400", "root:x:0:0::/:/bin/sh"]
    told = await said(backend, asking("cat /etc/app/a; stat -c %u /etc/app/a", mount(src), files={"/etc/app/a": b"1"}))
    assert told == [f"1{OWNER}"]
    for path in ("/src/conf/x", "/src/x", "/workspace/x", "/e/x"):
        with pytest.raises(InvalidInput):
            await run(backend, asking("true", writable(src), EmptyMount("/e"), files={path: b""}))
    assert sorted(each.name for each in src.iterdir()) == ["file", "sub"]


async def test_nothing_is_written_where_private_files_are(
    backend: DockerBackend, asking: Asking, src: Path, top: Path
) -> None:
    """This also applies to folders of the image that every user may write to, because they are on the engine's disk,
    without a limit."""
    image = make_image(folders={"etc/app": 0o777, "etc/app/cache": 0o1777, "etc/app/mine": 0o700})
    other = folder(top / "other", {"x": "other"})
    try:
        files = {"/etc/app/key": b"k", "/etc/app/deep/key": b"d"}
        script = (
            "cat /etc/app/key /etc/app/deep/key; for f in evil key deep/evil cache/evil; do echo x > /etc/app/$f; done;"
            " chmod 777 /etc/app/key; echo; "
        )
        outcome, heard = await run(
            backend, asking(f"{script} stat -c %u:%a /etc/app /etc/app/key", files=files, image=image)
        )
        assert (outcome.reason, heard.out.split()) == (ExitReason.COMPLETED, [b"kd", b"0:777", b"65534:400"])
        assert heard.err.count(b"Read-only file system") == 5
        inner = (writable(other, "/etc/app/other"), EmptyMount("/etc/app/cache"), EmptyMount("/etc/app/new/er"))
        one = mount(top / "other" / "x", "/etc/app/one")
        script += (
            "cat /etc/app/one; for f in other cache new/er; do echo y > /etc/app/$f/y; done;"
            " cat /etc/app/*/y /etc/app/new/er/y"
        )
        outcome, heard = await run(backend, asking(script, *inner, one, files=files, image=image))
        assert outcome.reason is ExitReason.COMPLETED, (outcome.message, heard.err)
        assert heard.out.split() == [b"kd", b"othery", b"y", b"y"]
        assert (other / "y").read_text() == "y\n"
    finally:
        remove_image(image)


async def test_where_nothing_can_be_mounted(backend: DockerBackend, asking: Asking, src: Path) -> None:
    engine = backend._engine
    with pytest.raises(SandboxUnavailable, match="/src: this operator has no folder for that"):
        await run(DockerBackend(engine), asking("true", mount(src)))
    address, engine.address = engine.address, "tcp://elsewhere:2376"
    try:
        with pytest.raises(SandboxUnavailable, match="on another host"):
            await run(backend, asking("true", mount(src)))
    finally:
        engine.address = address


def keeping(pattern: str, seen: dict[str, bytes]) -> Callable[[FileTree, Outcome], Outcome]:
    def collect(tree: FileTree, outcome: Outcome) -> Outcome:
        for file in tree.find(pattern):
            with file.open() as source:
                seen[file.path] = source.read()
        return outcome

    return collect


async def test_what_is_left_in_a_mounted_folder_is_kept(backend: DockerBackend, asking: Asking, src: Path) -> None:
    seen: dict[str, bytes] = {}
    at = writable(src, "/workspace/src")
    script = "echo made > /workspace/src/made; echo own > /workspace/own"
    await run(backend, asking(script, at, collector=keeping("/workspace/**", seen)))
    assert seen == {"src/file": b"of the host", "src/sub/deep": b"deep", "src/made": b"made\n", "own": b"own\n"}
    (src / "made").unlink()
    (src / "link").symlink_to("/etc/shadow")
    (src / "roots").write_text("secret")
    (src / "roots").chmod(0o600)
    with pytest.raises(PermissionError):
        await run(backend, asking("true", at, collector=keeping("/workspace/src/roots", seen)))
    seen.clear()
    await run(backend, asking("true", at, collector=keeping("/workspace/src/l*", seen)))
    assert seen == {}


async def test_an_adopted_container_keeps_too(backend: DockerBackend, asking: Asking, src: Path) -> None:
    seen: dict[str, bytes] = {}
    script = "echo ready; while [ ! -e /src/go ]; do sleep 0.1; done; echo made > /src/made; echo own > own"
    request, heard = asking(script, writable(src), collector=keeping("/src/made", seen)), Heard()
    first = asyncio.create_task(backend.run(request, heard, cancel=asyncio.Event()))
    await heard.begun(first)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    (src / "go").touch()
    outcome = await backend.adopt(request, Heard(), cancel=asyncio.Event(), on_found=lambda _: None)
    assert outcome is not None
    assert outcome.reason is ExitReason.COMPLETED, outcome.message
    assert seen == {"made": b"made\n"}


def test_what_a_killed_operator_has_mounted_is_cleared(top: Path, src: Path) -> None:
    staging = Staging(top / "mounts")
    place = staging.folder / "remit-x"
    place.mkdir(parents=True)
    stage_at(str(place), [(_copy(src), -1, "", "")])
    assert (place / "0" / "file").read_text() == "of the host"
    staging.clear()
    assert list(staging.folder.iterdir()) == []
    assert (src / "file").read_text() == "of the host"


async def test_a_cancelled_attempt_is_cleared_once_nothing_is_staged_for_it(
    backend: DockerBackend, asking: Asking, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder(top / "data", owner=0)
    began, go, ended = threading.Event(), threading.Event(), threading.Event()
    stayed: list[bool] = []

    def slowly(descriptor: int, uid: int, gid: int) -> None:
        before = os.fstat(descriptor)
        began.set()
        go.wait(PATIENCE)
        with contextlib.suppress(OSError):
            stayed.append(os.path.samestat(before, os.fstat(descriptor)))
        ended.set()

    monkeypatch.setattr("remit.sandbox.mounts.give", slowly)
    request = asking("true", writable(data, "/cache", own=True, internal=True))
    attempt = asyncio.create_task(backend.run(request, Heard(), cancel=asyncio.Event()))
    await asyncio.to_thread(began.wait, PATIENCE)
    attempt.cancel()
    await asyncio.wait({attempt}, timeout=PATIENCE)
    go.set()
    await asyncio.to_thread(ended.wait, PATIENCE)
    assert stayed == [True]
    async with asyncio.timeout(PATIENCE):
        # Polled, because there is no notification.
        while (top / "mounts").is_dir() and list((top / "mounts").iterdir()):
            await asyncio.sleep(0.01)


def test_what_cannot_be_staged_leaves_nothing_open(top: Path, src: Path) -> None:
    place = top / "place"
    place.mkdir()
    opened = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        stage_at(str(place), [(_copy(src), -1, "", ""), (_copy(src), 0, "not/there", ""), (_copy(src), -1, "", "")])
    unstage(str(place))
    with pytest.raises(FileNotFoundError):
        stage_at(str(top / "gone"), [(_copy(src), -1, "", "")])
    pipe, end = os.pipe()  # a pipe cannot be mounted
    with pytest.raises(OSError, match="Invalid argument"):
        copy_mount(pipe, True)
    os.close(pipe)
    os.close(end)
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def _copy(folder: Path) -> int:
    descriptor = os.open(folder, os.O_PATH)
    try:
        return copy_mount(descriptor, True)
    finally:
        os.close(descriptor)
