"""Tests that files from Secrets and ConfigMaps exist only in the sandbox of their task."""

from __future__ import annotations

import base64
import hashlib

from remit.errors import ApiError
from remit.kube.client import CONFIG_MAPS, SECRETS

from .conftest import World


async def given(world: World, **data: bytes) -> None:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    about = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}}
    await world.kube.create(SECRETS, "default", {**about, "data": encoded})


def from_secret(path: str, key: str, **more: object) -> dict[str, object]:
    return {"path": path, "valueFrom": {"secretKeyRef": {"name": "db", "key": key, **more}}}


async def test_they_are_there_private_and_as_they_were(world: World) -> None:
    every_byte = bytes(range(256))
    async with world.operator():
        await world.policy("sh", privateFiles={"allow": ["/workspace/in/*"]})
        await given(world, blob=every_byte)
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}}
        binary = {"blob": base64.b64encode(b"\xff\x00").decode()}
        await world.kube.create(CONFIG_MAPS, "default", {**config, "data": {"ini": "a = 1"}, "binaryData": binary})
        name = await world.sh(
            "cat /run/private/app.ini /workspace/in/put; cd /run/private/deep; sha256sum < blob; stat -c '%a %U' blob;"
            " wc -c < /run/private/more; cp /run/private/more /run/private/app.ini; ls /run/private/none",
            privateFiles=[
                from_secret("/run/private/deep/blob", "blob"),
                {"path": "/run/private/app.ini", "valueFrom": {"configMapKeyRef": {"name": "app", "key": "ini"}}},
                {"path": "/run/private/more", "valueFrom": {"configMapKeyRef": {"name": "app", "key": "blob"}}},
                {"path": "/workspace/in/put", "value": " b = 2\n"},
                from_secret("/run/private/none", "none", optional=True),
            ],
        )
        status = await world.finished(name)
    lines = status["output"]["stdoutTail"].splitlines()
    assert lines[0] == "a = 1 b = 2"
    assert lines[1].split()[0] == hashlib.sha256(every_byte).hexdigest()
    assert lines[2:] == ["400 remit", "2"]
    complaints = status["output"]["stderrTail"].splitlines()
    assert "/run/private/app.ini" in complaints[0]
    assert "/run/private/none" in complaints[1]


async def test_a_missing_one_is_waited_for(world: World) -> None:
    async with world.operator():
        await world.policy("cat")
        name = await world.task("cat", "/run/private/token", privateFiles=[from_secret("/run/private/token", "token")])
        waiting = await world.until(name, lambda status: "message" in status)
        assert waiting["message"] == "Secret db is not there; create it in namespace default"
        await given(world, token=b"t")
        assert (await world.finished(name))["phase"] == "Succeeded"


async def test_a_program_is_not_steered_by_a_file_in_its_home(world: World) -> None:
    async with world.operator():
        await world.policy("cat")
        file = {"path": "/workspace/.gitconfig", "value": "[core]\nsshCommand = evil"}
        status = await world.finished(await world.task("cat", "/workspace/.gitconfig", privateFiles=[file]))
    assert (status["phase"], status["conditions"][0]["reason"]) == ("Denied", "PrivateFileNotAllowed")
    assert "spec.privateFiles.allow" in status["message"]


async def test_a_private_file_is_placed_where_no_program_looks(world: World) -> None:
    paths = ["/run/package.json", "/run/user/1000/x", "/workspace/package.json", "/tmp/x"]
    async with world.operator():
        await world.policy("cat")
        names = [await world.task("cat", path, privateFiles=[{"path": path, "value": "x"}]) for path in paths]
        ends = [await world.finished(name) for name in names]
    denied = ("Denied", "PrivateFileNotAllowed")
    assert [(status["phase"], status["conditions"][0]["reason"]) for status in ends] == [denied] * len(paths)


ELSEWHERE = (
    "relative", "/etc/passwd", "/run", "/run/", "/run//x", "/run/../etc/x", "/run/x/..", "/run/./x", "/run/.",
    "/run/..", "/run/x/", "/run/a\nb",
    "/run/a\n", "/run/a\x1bb", "/runx", "/workspace", "/proc/self/x", "/run/remit/script",
    "/run/remit", "//run/x", "/dev/shm/x",
)  # fmt: skip


async def test_a_path_that_leads_elsewhere_is_refused_at_once(world: World) -> None:
    answers = [(path, await answer(world, [{"path": path, "value": "x"}])) for path in ELSEWHERE]
    assert answers == [(path, 422) for path in ELSEWHERE]


async def test_files_that_cannot_all_be_are_refused_at_once(world: World) -> None:
    cases: list[list[dict[str, object]]] = [
        [{"path": "/run/a", "value": "x"}, {"path": "/run/a/b", "value": "x"}],
        [{"path": "/run/a", "value": "x"}, {"path": "/run/a", "value": "y"}],
        [{"path": "/run/a"}],
        [{"path": "/run/a", "value": "x", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
        [{"path": f"/run/{number}", "value": "x"} for number in range(33)],
    ]
    assert [(files, await answer(world, files)) for files in cases] == [(files, 422) for files in cases]


async def answer(world: World, files: list[dict[str, object]]) -> int:
    """Returns the HTTP status of creating a task with these files."""
    try:
        await world.task("true", privateFiles=files)
    except ApiError as error:
        return error.status
    return 201


UNUSUAL = ("/run/..x/...", "/run/.x", "/run/a b", "/workspace/ä", "/run/remits")


async def test_unusual_names_are_fine(world: World) -> None:
    async with world.operator():
        await world.policy("cat", privateFiles={"allow": ["/workspace/*", "/run/*"]})
        names = [await world.task("cat", path, privateFiles=[{"path": path, "value": path}]) for path in UNUSUAL]
        ends = [await world.finished(name) for name in names]
    assert [status["output"]["stdoutTail"] for status in ends] == list(UNUSUAL)


async def test_a_working_directory_that_does_not_exist_is_not_made(world: World) -> None:
    async with world.operator():
        await world.policy("cat", privateFiles={"allow": ["/workspace/in/*"]})
        file = {"path": "/workspace/in/put", "value": "x"}
        there = await world.task("cat", "put", workingDir="/workspace/in", privateFiles=[file])
        nowhere = await world.task("cat", workingDir="/workspace/in")
        assert (await world.finished(there))["output"]["stdoutTail"] == "x"
        status = await world.finished(nowhere)
    assert (status["phase"], status["conditions"][0]["reason"]) == ("Failed", "StartFailed")
    assert "/workspace/in: No such file or directory" in status["message"]


async def test_a_working_directory_that_is_a_file_ends_the_task(world: World) -> None:
    async with world.operator():
        await world.policy("cat", privateFiles={"allow": ["/workspace/*"]})
        file = {"path": "/workspace/x", "value": "x"}
        status = await world.finished(await world.task("cat", workingDir="/workspace/x/y", privateFiles=[file]))
    assert status["phase"] == "Failed"
    assert "another path goes through it" in status["message"]


async def test_a_secret_too_short_to_hide_is_reported(world: World) -> None:
    async with world.operator():
        await world.policy("cat", environment={"allow": ["PIN"]})
        await given(world, pin=b"42\n")
        reference = {"secretKeyRef": {"name": "db", "key": "pin"}}
        files = [from_secret("/run/private/pin", "pin")]
        name = await world.task(
            "cat", "/run/private/pin", privateFiles=files, env=[{"name": "PIN", "valueFrom": reference}]
        )
        await world.finished(name)
        events = await world.events(name, 2)
    (warning,) = (event for event in events if event["reason"] == "ShortSecret")
    assert "env PIN, private file /run/private/pin" in warning["message"]
    assert "42" not in warning["message"]
