"""Tests the docker target on engines that are unavailable, behind TLS, and behind SSH, and images from a registry."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from dockers import LEAKING, OwnEngine, docker, make_image, needs_docker, remove_image, sdk_leaves_sockets  # noqa: F401
from dockerstage import Stage, staged
from engines import Authority, Relay, ssh_host
from parts import require
from registry import PASSWORD, USER, registry
from remit.errors import DeploymentError
from remit.release.targets.docker import connection, images


@pytest.fixture
async def stage(tmp_path: Path, image: str) -> AsyncIterator[Stage]:
    async with staged(tmp_path, image) as stage:
        yield stage


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    relay = Relay()
    yield relay
    await relay.shut()


@LEAKING
async def test_an_engine_that_goes_away_and_comes_back(stage: Stage, relay: Relay) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "engine")
        stage.spec = {"host": await relay.open_unix(path)}
        before = await stage.live()
        await relay.shut()
        assert "no Docker engine at unix://" in (await stage.target.observe()).unreachable
        assert await stage.answer() == "v1"
        await relay.open_unix(path)
        after = await stage.until(lambda observed: not observed.unreachable)
        assert replace(after, blue=replace(after.blue, requests=before.blue.requests)) == before
        await stage.end()


@LEAKING
async def test_an_engine_that_is_restarted_brings_its_replicas_back(tmp_path: Path) -> None:
    needs_docker()
    with tempfile.TemporaryDirectory(prefix="remit-") as folder:
        engine = OwnEngine(Path(folder))
        await asyncio.to_thread(engine.start)
        try:
            stage = Stage(tmp_path, await asyncio.to_thread(make_image, engine.host))
            stage.spec = {"host": engine.host}
            before = await stage.live(replicas=2)
            await asyncio.to_thread(engine.stop)
            assert (await stage.target.observe()).unreachable
            await asyncio.to_thread(engine.start)
            after = await stage.until(lambda observed: observed.ready(1, "blue", 2))
            first, again = (
                {each.incarnation for each in observed.blue.instances.values()} for observed in (before, after)
            )
            assert not first & again, "they were started again"
            as_before = replace(after.blue, instances=before.blue.instances, requests=before.blue.requests)
            assert replace(after, blue=as_before) == before
            assert await stage.answer() == "v1"
            await stage.end()
        finally:
            await asyncio.to_thread(engine.stop)


@LEAKING
async def test_an_engine_behind_tls(stage: Stage, relay: Relay, tmp_path: Path) -> None:
    """Both ends authenticate, and other certificates are used as soon as the Secret contains them."""
    authority = Authority()
    host = await relay.open_tls(authority.context(tmp_path / "engine"))
    stage.spec = {"host": host, "tlsSecret": "engine"}
    one = stage.revision(1)
    assert "Secret engine is not there" in (await stage.target.observe()).unreachable
    stage.secrets["engine"] = {**Authority().secret()}
    assert "certificate verify failed" in (await stage.target.observe()).unreachable
    stage.secrets["engine"] = {"ca.crt": b""}
    assert "has no tls.crt and no tls.key" in (await stage.target.observe()).unreachable
    stage.secrets["engine"] = authority.secret()
    await stage.provision("blue", one)
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")
    assert await stage.answer() == "v1"
    assert [path.stat().st_mode & 0o777 for path in (stage.folder / "release/tls").iterdir()] == [0o600] * 3
    await stage.end()


@LEAKING
async def test_an_engine_behind_ssh(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("ssh", shutil.which("ssh"), "install an OpenSSH client")
    async with ssh_host(tmp_path / "ssh", tmp_path / "programs") as host:
        monkeypatch.setenv("PATH", f"{tmp_path}/programs:{os.environ['PATH']}")
        stage.spec = {"host": host}
        await stage.live()
        assert await stage.answer() == "v1"
        known = (tmp_path / "ssh" / "known").read_text()
        (tmp_path / "ssh" / "known").write_text("")
        await stage.target.close()
        observed = await stage.target.observe()
        assert "Host key verification failed" in observed.unreachable
        assert host in observed.unreachable
        (tmp_path / "ssh" / "known").write_text(known)
        await stage.until(lambda observed: observed.ready(1, "blue", 1))
        await stage.end()


def _login(password: str, host: str) -> Mapping[str, bytes]:
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    return {".dockerconfigjson": json.dumps({"auths": {"elsewhere": {}, host: {"auth": auth}}}).encode()}


async def test_images_are_pulled_with_pull_secrets(stage: Stage) -> None:
    async with registry() as host:
        artifact = {"image": f"{host}/shop:v1", "pullPolicy": "Always", "pullSecrets": ["registry"]}
        one, none = stage.revision(1, artifact=artifact), {**artifact, "image": f"{host}/shop:none"}
        for secret, reason in (
            ({"other": b""}, "InvalidPullSecret"),
            (_login("wrong", host), "EngineFailed"),
        ):
            stage.secrets["registry"] = secret
            with pytest.raises(DeploymentError) as caught:
                await stage.target.prepare(one)
            assert (caught.value.reason, caught.value.retryable) == (reason, True), caught.value
        stage.secrets["registry"] = _login(PASSWORD, host)
        with pytest.raises(DeploymentError, match="shop:none") as caught:
            await stage.target.prepare(stage.revision(2, artifact=none))
        assert (caught.value.reason, caught.value.retryable) == ("ImageNotFound", False), caught.value
        assert PASSWORD not in str(caught.value)
        try:
            await stage.provision("blue", one)
        finally:
            docker("rmi", f"{host}/shop:v1")
    await stage.until(lambda observed: observed.ready(1, "blue", 1))  # the image is not pulled again


async def test_a_pull_that_takes_long_does_not_delay_others(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_WAIT_SECONDS", 0)
    async with registry() as host:
        stage.secrets["registry"] = _login(PASSWORD, host)
        one = stage.revision(1, artifact={"image": f"{host}/shop:v1", "pullSecrets": ["registry"]})
        with pytest.raises(DeploymentError) as caught:
            await stage.target.prepare(one)
        assert (caught.value.reason, caught.value.retryable) == ("Pulling", True)
        monkeypatch.setattr(images, "_WAIT_SECONDS", 30)
        await stage.target.prepare(one)
        docker("rmi", f"{host}/shop:v1")


async def test_a_local_engine_without_root_publishes_on_this_host_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_is_apart", lambda info: True)
    await stage.live()
    assert await stage.answer() == "v1"
    (binding,) = stage.inspected("blue")["NetworkSettings"]["Ports"]["8080/tcp"]
    assert binding["HostIp"] == "127.0.0.1"
    docker("kill", stage.name("blue"))
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    assert await stage.answer() == "v1"
