"""Tests tasks with `backend: docker`, through a whole operator and a real Docker engine."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dockers import (  # noqa: F401
    LEAKING,
    SHARED,
    docker,
    make_image,
    needs_docker,
    own_engine,
    remove_image,
    sdk_leaves_sockets,
)
from mortaloperator import mortals
from outgoing import open_listener, web_server
from remit.kube.client import CONFIG_MAPS, SECRETS, TASKS

from .conftest import World


@pytest.fixture
async def docked(world: World, image: str) -> World:
    await world.policy("sh", backends=["docker", "process"], images={"allow": ["remit-test:*"]})
    return world


async def in_container(world: World, image: str, script: str, **spec: Any) -> str:
    return await world.sh(script, backend="docker", image=image, **spec)


async def containers(world: World, *uids: str, host: str = SHARED) -> list[str]:
    """Returns the names of the containers of attempts of this test's tasks, or of these uids. Other tests use the
    engine too."""
    uids = uids or tuple(task["metadata"]["uid"] for task in await world.kube.list(TASKS, "default"))
    found = docker("ps", "-a", "--filter", "label=remit.dev/attempt", "--format", "{{.Names}}", host=host)
    return [name for name in found.stdout.decode().split() if any(uid in name for uid in uids)]


def trail(world: World) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (world.settings.state_dir / "audit/audit.jsonl").read_text().splitlines()]


@pytest.mark.no_cover
async def test_a_task_in_a_container(docked: World, image: str) -> None:
    async with docked.operator():
        name = await in_container(docked, image, "echo out; echo err >&2; cat; exit 3", stdin="given")
        status = await docked.finished(name)
    (attempt,) = status["attempts"]
    assert (attempt["backend"], attempt["exitCode"], attempt["reason"]) == ("docker", 3, "ExitCode")
    assert (status["output"]["stdoutTail"], status["output"]["stderrTail"]) == ("out\ngiven", "err\n")
    assert {"namespaces", "seccomp", "cgroup", "rlimits"} == set(status["sandbox"]["layers"])
    (execution,) = (record for record in trail(docked) if record["kind"] == "execution")
    assert (execution["backend"], execution["exit_code"]) == ("docker", 3)
    assert await containers(docked) == []


async def test_a_script_and_a_secret(docked: World, image: str) -> None:
    await docked.policy(
        scripts={"interpreters": ["sh"], "patterns": ["(?s).*"]},
        environment={"allow": ["TOKEN"]},
        backends=["docker"],
        images={"allow": ["remit-test:*"]},
    )
    await docked.kube.create(
        SECRETS,
        "default",
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "canary-secret"}},
    )
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    async with docked.operator():
        script = {"interpreter": "sh", "source": "echo the $TOKEN\necho second line\n"}
        status = await docked.finished(await docked.task(script=script, env=env, backend="docker", image=image))
    assert (status["phase"], status["output"]["stdoutTail"]) == ("Succeeded", "the [redacted]\nsecond line\n")
    assert "canary" not in json.dumps([status, trail(docked)])


@pytest.mark.parametrize(
    ("spec", "reason", "says"),
    [
        ({"image": "elsewhere/x:1"}, "ImageNotAllowed", "images.allow"),
        ({"network": "restricted"}, "NetworkNotAllowed", "spec.networks"),
        ({"resources": {"diskBytesPerSecond": "1Mi"}}, "SandboxUnavailable", "cannot hold"),
    ],
)
@pytest.mark.no_cover
async def test_what_is_refused(docked: World, image: str, spec: dict[str, Any], reason: str, says: str) -> None:
    async with docked.operator():
        status = await docked.finished(await docked.sh("echo x", **{"backend": "docker", "image": image, **spec}))
    (finished,) = (found for found in status["conditions"] if found["type"] == "Finished")
    assert (finished["reason"], says in finished["message"]) == (reason, True), finished
    assert await containers(docked) == []


@pytest.mark.no_cover
async def test_memory_and_time_are_distinguished(docked: World, image: str) -> None:
    """The container continues after the OOM kill, because the engine may miss a kill that ends the container. See
    docs/backends.md."""
    async with docked.operator():
        hungry = await in_container(docked, image, "tail /dev/zero; sleep 1; exit 137", resources={"memory": "16Mi"})
        slow = await in_container(docked, image, "echo begun; sleep 600", timeoutSeconds=1)
        killed = (await docked.finished(hungry))["attempts"][0]["reason"]
        late = await docked.finished(slow)
    assert killed == "OOMKilled"
    assert (late["phase"], late["output"]["stdoutTail"]) == ("TimedOut", "begun\n")
    assert await containers(docked) == []


async def test_cancelled(docked: World, image: str) -> None:
    async with docked.operator():
        name = await in_container(docked, image, "echo begun; sleep 600")
        await docked.phase(name, "Running")
        await docked.edit(name, {"cancel": True})
        assert (await docked.finished(name))["phase"] == "Cancelled"
    assert await containers(docked) == []


@pytest.mark.no_cover
async def test_a_new_operator_adopts_what_runs(docked: World, image: str, tmp_path: Path) -> None:
    """There is one run with all of its output and its exit code, as without a change of the operator."""
    async with docked.operator() as operator:
        name = await in_container(
            docked, image, "echo begun; while ! test -e /workspace/go; do sleep 0.1; done; exit 5"
        )
        uid = (await docked.get(name))["metadata"]["uid"]
        await docked.phase(name, "Running")
        await _until_it_says(operator, uid, b"begun")
    (container,) = await containers(docked)
    assert (await docked.get(name))["status"]["phase"] == "Running"
    async with docked.operator():
        assert docker("exec", "-u", "65534", container, "touch", "/workspace/go").returncode == 0
        status = await docked.finished(name)
    (attempt,) = status["attempts"]
    assert (attempt["exitCode"], status["output"]["stdoutTail"]) == (5, "begun\n")
    assert [record["kind"] for record in trail(docked)] == ["decision", "execution"]
    assert await containers(docked) == []


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.no_cover
async def test_what_has_an_earlier_value_of_a_secret_is_not_taken_up(docked: World, image: str, raw: bool) -> None:
    """The operator that would adopt it could not redact that value."""
    await docked.policy(
        "sh",
        environment={"allow": ["TOKEN"]},
        output={"allowRaw": True},
        backends=["docker"],
        images={"allow": ["remit-test:*"]},
    )
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "canary-before"}}
    await docked.kube.create(SECRETS, "default", secret)
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    async with docked.operator() as operator:
        name = await in_container(docked, image, "echo begun $TOKEN; sleep 600", env=env, output={"raw": raw})
        uid = (await docked.get(name))["metadata"]["uid"]
        await _until_it_says(operator, uid, b"begun")
    await docked.kube.patch(SECRETS, "default", "s", {"data": {"k": base64.b64encode(b"canary-after").decode()}})
    async with docked.operator():
        status = await docked.finished(name)
        events = await docked.events(name, 1)
    assert "canary" not in json.dumps([status, trail(docked), events])
    assert status["attempts"][0]["reason"] == "Interrupted"
    assert "Secret" in status["message"]
    assert await containers(docked) == []


async def test_a_restricted_network_outlives_an_operator(docked: World, image: str) -> None:
    """The network allows the hosts that the policy lists. The traffic of two operators is one count in status and audit
    trail."""
    async with web_server() as port:
        rule = {"hosts": ["localhost"], "ports": [port], "addresses": ["127.0.0.0/8", "::1/128"]}
        await docked.policy(
            "sh",
            backends=["docker"],
            images={"allow": ["remit-test:*"]},
            networks=["restricted"],
            egress={"allow": [rule]},
        )
        fetch = f"busybox wget -qO- http://localhost:{port}/"
        script = (
            f"{fetch}1; echo; echo begun; while ! test -e /workspace/go; do sleep 0.1; done; {fetch}2; echo;"
            f" busybox wget -qO- http://elsewhere.test:{port}/ || echo refused;"
            f" busybox nc -w 1 127.0.0.1 {port} < /dev/null || echo not here"
        )
        async with docked.operator() as operator:
            name = await in_container(docked, image, script, network="restricted")
            uid = (await docked.get(name))["metadata"]["uid"]
            await _until_it_says(operator, uid, b"begun")
        container = f"remit-{uid}-1"
        assert {container, f"{container}-network"} <= set(await containers(docked))
        async with docked.operator():
            await open_listener(f"{container}-network")
            assert docker("exec", "-u", "65534", container, "touch", "/workspace/go").returncode == 0
            status = await docked.finished(name)
    (attempt,) = status["attempts"]
    assert status["output"]["stdoutTail"] == "GET /1 HTTP/1.1\nbegun\nGET /2 HTTP/1.1\nrefused\nnot here\n"
    assert (attempt["network"]["connections"], attempt["network"]["denied"]) == (2, 1)
    assert "elsewhere.test" in attempt["network"]["lastDenied"]
    (execution,) = (record for record in trail(docked) if record["kind"] == "execution")
    assert [each["destination"] for each in execution["network"]] == [f"localhost:{port}", f"elsewhere.test:{port}"]
    assert not {container, f"{container}-network"} & set(await containers(docked))


@pytest.mark.no_cover
async def test_a_task_deleted_while_no_operator_was_there_leaves_no_container(docked: World, image: str) -> None:
    async with docked.operator() as operator:
        name = await in_container(docked, image, "echo begun; sleep 600")
        uid = (await docked.get(name))["metadata"]["uid"]
        await docked.phase(name, "Running")
        await _until_it_says(operator, uid, b"begun")
    assert len(await containers(docked, uid)) == 1
    await docked.kube.delete(TASKS, "default", name)
    async with docked.operator():
        await docked.finished(await docked.sh("true"))
    assert await containers(docked, uid) == []


@LEAKING
@pytest.mark.timeout(180)
@pytest.mark.parametrize("network", ["none", "restricted"])
@pytest.mark.no_cover
async def test_an_engine_that_is_restarted_in_mid_run(docked: World, network: str) -> None:
    """Containers that the restart ends are not a failure of the command, and the task is retried."""
    needs_docker()
    await docked.policy("sh", backends=["docker"], images={"allow": ["remit-test:*"]}, networks=["none", "restricted"])
    with own_engine() as engine:
        image = make_image(engine.host)
        async with docked.operator(docker_host=engine.host) as operator:
            retry = {"maxRetries": 3, "backoff": {"initialSeconds": 1, "jitter": 0}}
            script = "echo begun; test $REMIT_ATTEMPT = 1 && sleep 600; echo done"
            name = await in_container(docked, image, script, retry=retry, network=network)
            uid = (await docked.get(name))["metadata"]["uid"]
            await docked.phase(name, "Running")
            await _until_it_says(operator, uid, b"begun")
            engine.stop(signal.SIGTERM)
            engine.start()
            status = await docked.finished(name)
        assert (status["phase"], status["output"]["stdoutTail"]) == ("Succeeded", "begun\ndone\n")
        first, *_ = status["attempts"]
        assert first["reason"] == "BackendError"
        assert await containers(docked, host=engine.host) == []


async def test_killed_by_another_process(docked: World, image: str) -> None:
    async with docked.operator() as operator:
        name = await in_container(docked, image, "echo begun; sleep 600")
        uid = (await docked.get(name))["metadata"]["uid"]
        await _until_it_says(operator, uid, b"begun")
        docker("kill", *await containers(docked, uid))
        status = await docked.finished(name)
    assert status["attempts"][0]["reason"] == "BackendError"
    assert "from outside" in status["message"]


@LEAKING
async def test_no_engine(docked: World, tmp_path: Path) -> None:
    async with docked.operator(docker_host=f"unix://{tmp_path}/none.sock"):
        status = await docked.finished(await in_container(docked, "remit-test:x", "true"))
    assert status["attempts"][0]["reason"] == "BackendError"
    assert f"{tmp_path}/none.sock" in status["message"]


async def _until_it_says(operator: Any, uid: str, word: bytes) -> None:
    async with asyncio.timeout(60):
        while True:
            kept = (path.read_bytes() for path in (operator.runner.store.root / "default" / uid).rglob("stdout.*"))
            if any(word in text for text in kept):
                return
            await asyncio.sleep(0.02)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_what_a_task_makes_is_kept_and_mounted_by_the_next(docked: World, image: str) -> None:
    """This includes an operator that was stopped while the first task ran."""
    await docked.policy(
        "sh",
        backends=["docker"],
        images={"allow": ["remit-test:*"]},
        volumes={"artifacts": {}, "workspaces": [{"names": ["cache"]}]},
        privateFiles={"allow": ["/etc/app"]},
    )
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}, "data": {"greeting": "hello"}}
    await docked.kube.create(CONFIG_MAPS, "default", config)
    cache = {"name": "cache", "workspace": {"name": "cache"}}
    made = {
        "volumes": [{"name": "app", "configMap": {"name": "app"}}, cache, {"name": "e", "emptyDir": {}}],
        "volumeMounts": [
            {"name": "app", "mountPath": "/etc/app"},
            {"name": "cache", "mountPath": "/cache", "access": "ReadWrite"},
            {"name": "e", "mountPath": "/e"},
        ],
        "artifacts": [{"name": "all", "path": "/e/**"}],
        "results": [{"name": "version", "path": "version"}],
    }
    script = (
        "echo begun; while ! test -e go; do sleep 0.1; done;"
        " cat /etc/app/greeting > /e/said; echo 7 > version; echo kept > /cache/x"
    )
    async with docked.operator() as operator:
        name = await in_container(docked, image, script, **made)
        uid = (await docked.get(name))["metadata"]["uid"]
        await _until_it_says(operator, uid, b"begun")
    async with docked.operator():
        assert docker("exec", f"remit-{uid}-1", "touch", "/workspace/go").returncode == 0
        status = await docked.finished(name)
        assert (status["phase"], status["results"]) == ("Succeeded", [{"name": "version", "value": "7"}]), status
        assert status["artifacts"][0]["files"] == 1
        used = {
            "volumes": [{"name": "said", "artifact": {"task": name, "name": "all"}}, cache],
            "volumeMounts": [{"name": "said", "mountPath": "/in"}, {"name": "cache", "mountPath": "/cache"}],
        }
        script = "cat /in/said /cache/x; echo x > /in/said; echo x > /cache/x; true"
        status = await docked.finished(await in_container(docked, image, script, **used))
    assert status["output"]["stdoutTail"] == "hellokept\n", status
    assert status["output"]["stderrTail"].count("Read-only") == 2
    assert await containers(docked) == []


@pytest.mark.no_cover
async def test_operators_that_are_killed_while_they_collect_lose_nothing(docked: World, image: str) -> None:
    """Successive operators are killed, each a bit later, until the artifacts are recorded."""
    await docked.policy("sh", backends=["docker"], images={"allow": ["remit-test:*"]}, volumes={"artifacts": {}})
    keeps: dict[str, Any] = {
        "artifacts": [{"name": "all", "path": "/workspace/f*"}],
        "results": [{"name": "version", "path": "version"}],
    }
    script = "for f in f1 f2 f3; do head -c 300000 /dev/zero > $f; echo $f >> $f; done; echo 7 > version"
    name = await in_container(docked, image, script, **keeps)
    async with mortals(docked.control_plane.kubeconfig, docked.settings.state_dir) as operators:
        for point in ("Open before", "Put after", "Sync after", "Collect after"):
            await operators.dies(point)
            assert (await docked.get(name))["status"]["phase"] == "Running"
            assert "artifacts" not in (await docked.get(name))["status"]
        await operators.dies("Commit before")
    async with docked.operator():
        status = await docked.finished(name)
    assert (status["phase"], len(status["attempts"])) == ("Succeeded", 1), status
    assert status["results"] == [{"name": "version", "value": "7"}]
    contents = {f"f{number}": bytes(300_000) + b"f%d\n" % number for number in (1, 2, 3)}
    sums = "".join(f"{hashlib.sha256(contents[path]).hexdigest()}  {path}\n" for path in sorted(contents))
    (kept,) = status["artifacts"]
    assert (kept["files"], kept["bytes"]) == (3, sum(map(len, contents.values())))
    assert kept["digest"] == f"sha256:{hashlib.sha256(sums.encode()).hexdigest()}"
    assert await containers(docked) == []


@pytest.mark.no_cover
async def test_what_an_operator_has_removed_before_it_was_killed_has_left_nothing(docked: World, image: str) -> None:
    """Artifacts are recorded, but not the end of the attempt."""
    await docked.policy("sh", backends=["docker"], images={"allow": ["remit-test:*"]}, volumes={"artifacts": {}})
    name = await in_container(docked, image, "echo x > x", artifacts=[{"name": "all", "path": "x"}])
    async with mortals(docked.control_plane.kubeconfig, docked.settings.state_dir) as operators:
        await operators.dies("Remove after")
    async with docked.operator():
        status = await docked.finished(name)
        assert (status["phase"], status["attempts"][0]["reason"]) == ("Failed", "Interrupted"), status
        assert not status.get("artifacts")
    assert await containers(docked) == []


@pytest.mark.no_cover
async def test_standard_input_from_a_file_of_the_host(docked: World, image: str, tmp_path: Path) -> None:
    """Uses the operator's own configuration: nothing of the host is mounted for it, and the operator's state cannot be
    accessed."""
    dump = tmp_path.resolve() / "dump.sql"
    dump.write_text("of the host\n")
    state = docked.settings.state_dir.resolve()
    async with docked.operator():
        (state / "key").write_text("not yours")
        hosts = {"hostPaths": [{"paths": [str(dump), f"{state}/**"]}]}
        await docked.policy("sh", backends=["docker"], images={"allow": ["remit-test:*"]}, volumes=hosts)
        ends = []
        for path in (dump, state / "key"):
            volume = {"name": "file", "hostPath": {"path": str(path)}}
            name = await in_container(docked, image, "cat", volumes=[volume], stdinFrom={"volume": {"name": "file"}})
            ends.append(await docked.finished(name))
    assert (ends[0]["phase"], ends[0]["output"]["stdoutTail"]) == ("Succeeded", "of the host\n"), ends[0]
    assert ends[1]["attempts"][0]["reason"] == "StartFailed"
    assert "never mounted" in ends[1]["message"]
