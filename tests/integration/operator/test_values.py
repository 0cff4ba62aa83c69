"""Tests that environment variables from Secrets and ConfigMaps are given to the run and appear nowhere else."""

from __future__ import annotations

import base64
import hashlib
import os

from remit.kube.client import CONFIG_MAPS, SECRETS

from .conftest import World

SECRET = "correct horse battery staple"


async def secret(world: World, name: str, **data: str) -> None:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    await world.kube.create(
        SECRETS, "default", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}
    )


async def config(world: World, name: str, **data: str) -> None:
    await world.kube.create(
        CONFIG_MAPS, "default", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    )


def reference(kind: str, name: str, key: str) -> dict[str, object]:
    return {"valueFrom": {kind: {"name": name, "key": key}}}


async def test_values_reach_the_run_and_later_ones_win(world: World) -> None:
    async with world.operator():
        await world.policy("sh", environment={"allow": ["COLOUR", "SIZE", "APP_*", "PASSWORD"]})
        await config(world, "app", COLOUR="red", SIZE="large")
        await secret(world, "db", password="x1y2z3w4")
        name = await world.sh(
            'echo "$COLOUR $APP_SIZE ${#PASSWORD} $HOME $REMIT_TASK_NAMESPACE"; env | cut -d= -f1 | tr "\\n" " "',
            envFrom=[{"configMapRef": {"name": "app"}}, {"prefix": "APP_", "configMapRef": {"name": "app"}}],
            env=[
                {"name": "COLOUR", "value": "blue"},
                {"name": "PASSWORD", **reference("secretKeyRef", "db", "password")},
            ],
        )
        status = await world.finished(name)
    first, names = status["output"]["stdoutTail"].split("\n")
    assert first == "blue large 8 /workspace default"
    assert set(names.split()) == {
        "APP_COLOUR", "APP_SIZE", "COLOUR", "HOME", "LANG", "PASSWORD", "PATH", "PWD", "REMIT_ATTEMPT",
        "REMIT_TASK_NAME", "REMIT_TASK_NAMESPACE", "SIZE", "TMPDIR",
    }  # fmt: skip


async def test_a_secret_is_nowhere_to_be_seen(world: World) -> None:
    async with world.operator():
        await world.policy("sh", environment={"allow": ["PASSWORD"]})
        await secret(world, "db", password=SECRET)
        script = 'echo "it is $PASSWORD"; echo "$PASSWORD" >&2; printf %s "$PASSWORD" | base64; exit 1'
        name = await world.sh(script, env=[{"name": "PASSWORD", **reference("secretKeyRef", "db", "password")}])
        status = await world.finished(name)
        events = await world.events(name, 1)
    assert "[redacted]" in status["output"]["stdoutTail"]
    encoded = base64.b64encode(SECRET.encode()).decode()
    for text in (str(status), str(events)):
        assert SECRET not in text
        assert encoded not in text
    kept = [path for path in world.settings.state_dir.rglob("*") if path.is_file()]
    assert any(path.name == "stdout.head" for path in kept)
    for path in kept:
        assert SECRET.encode() not in path.read_bytes(), path


async def test_changes_by_redaction_are_reported(world: World) -> None:
    async with world.operator():
        await world.policy("sh", environment={"allow": ["PASSWORD"]})
        await secret(world, "db", password=SECRET)
        env = [{"name": "PASSWORD", **reference("secretKeyRef", "db", "password")}]
        changed = await world.sh('echo "row $PASSWORD"; echo "row $PASSWORD"; echo "$PASSWORD" >&2', env=env)
        as_it_was = await world.sh("echo [redacted]", env=env)
        status = await world.finished(changed)
        assert status["output"]["redactions"] == 3
        (event,) = (each for each in await world.events(changed, 2) if each["reason"] == "OutputRedacted")
        assert (event["type"], "3 times in stdout and stderr" in event["message"]) == ("Warning", True)
        assert SECRET not in event["message"]
        assert not (await world.finished(as_it_was))["output"].get("redactions")
        assert "OutputRedacted" not in str(await world.events(as_it_was, 1))


async def test_standard_input_of_a_config_map_or_a_secret(world: World) -> None:
    """The input is passed byte for byte, and can be longer than a task itself may contain."""
    data = os.urandom(700_000)
    digest = hashlib.sha256(data).hexdigest()
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dump"}}
    async with world.operator():
        await world.policy("sh", "sha256sum")
        encoded = base64.b64encode(data).decode()
        await world.kube.create(CONFIG_MAPS, "default", {**body, "binaryData": {"sql": encoded}})
        await secret(world, "db", password=SECRET)
        whole = await world.task("sha256sum", stdinFrom={"configMapKeyRef": {"name": "dump", "key": "sql"}})
        hidden = await world.sh("cat; cat >&2", stdinFrom={"secretKeyRef": {"name": "db", "key": "password"}})
        none = {"name": "db", "key": "none", "optional": True}
        empty = await world.sh("wc -c", stdinFrom={"secretKeyRef": none})
        assert (await world.finished(whole))["output"]["stdoutTail"] == f"{digest}  -\n"
        assert (await world.finished(hidden))["output"]["stdoutTail"] == "[redacted]"
        assert (await world.finished(empty))["output"]["stdoutTail"].strip() == "0"
        missing = await world.sh("cat", stdinFrom={"configMapKeyRef": {"name": "dump", "key": "other"}})
        waits = await world.until(missing, lambda status: "message" in status)
        assert waits["message"] == "ConfigMap dump has no key other"


async def test_standard_input_of_a_denied_task_is_not_reported(world: World) -> None:
    async with world.operator():
        await world.policy("sh")
        await secret(world, "db", password=SECRET)
        denied = await world.task("echo", SECRET, stdinFrom={"secretKeyRef": {"name": "db", "key": "password"}})
        status = await world.finished(denied)
    assert (status["phase"], SECRET in str(status)) == ("Denied", False)


async def test_output_that_looks_binary_is_reported(world: World) -> None:
    async with world.operator():
        await world.policy("sh", environment={"allow": ["PASSWORD"]})
        await secret(world, "db", password=SECRET)
        env = [{"name": "PASSWORD", **reference("secretKeyRef", "db", "password")}]
        script = 'printf "dump\\0%s" "$PASSWORD"; echo text >&2; exit 1'
        binary = await world.sh(script, env=env, retry={"maxRetries": 1, "backoff": {"initialSeconds": 0}})
        text = await world.sh("echo déjà vu")
        status = await world.finished(binary)
        assert status["output"]["binaryStreams"] == ["stdout"]
        events = [each for each in await world.events(binary, 6) if each["reason"] == "OutputBinary"]
        assert len(events) == 2, "once an attempt"
        assert all("stdout" in event["message"] and "spec.output.raw" in event["message"] for event in events)
        assert SECRET not in str(events)
        assert "OutputBinary" not in str(await world.events(text, 1))
        assert not (await world.finished(text))["output"].get("binaryStreams")


async def test_a_task_waits_for_what_it_refers_to(world: World) -> None:
    async with world.operator():
        await world.policy("sh", environment={"allow": ["PASSWORD"]})
        name = await world.sh(
            'echo "$PASSWORD" | wc -c', env=[{"name": "PASSWORD", **reference("secretKeyRef", "db", "pw")}]
        )
        waiting = await world.until(name, lambda status: "message" in status)
        assert waiting["message"] == "Secret db is not there; create it in namespace default"
        assert waiting["phase"] == "Pending"
        await secret(world, "db", pw="12345")
        status = await world.finished(name)
    assert status["output"]["stdoutTail"].strip() == "6"


async def test_what_is_optional_is_not_waited_for(world: World) -> None:
    async with world.operator():
        await world.policy("sh", environment={"allow": ["X"]})
        optional = {"valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": True}}}
        name = await world.sh(
            'echo "[$X]"',
            env=[{"name": "X", **optional}],
            envFrom=[{"configMapRef": {"name": "none", "optional": True}}],
        )
        assert (await world.finished(name))["output"]["stdoutTail"] == "[]\n"


async def test_a_variable_needs_a_policy_that_lists_it_wherever_it_comes_from(world: World) -> None:
    async with world.operator():
        await world.policy("echo", environment={"allow": ["COLOUR"]})
        await config(world, "bad", APT_CONFIG="/workspace/evil", COLOUR="red")
        await config(world, "odd", **{"app.ini": "x"})
        direct = await world.task("echo", env=[{"name": "Npm_Config_Script_Shell", "value": "x"}])
        hidden = await world.task("echo", envFrom=[{"configMapRef": {"name": "bad"}}])
        odd = await world.task("echo", envFrom=[{"configMapRef": {"name": "odd"}}])
        plain = await world.task("echo", env=[{"name": "TZ", "value": "Europe/Paris"}])
        said = {}
        for name in (direct, hidden, odd):
            status = await world.finished(name)
            assert (status["phase"], status["conditions"][0]["reason"]) == ("Denied", "EnvironmentNotAllowed")
            said[name] = status["message"]
        assert (await world.finished(plain))["phase"] == "Succeeded"
    assert 'environment: {allow: ["COLOUR", "Npm_Config_Script_Shell"]}' in said[direct]
    assert 'environment: {allow: ["COLOUR", "APT_CONFIG"]}' in said[hidden]
    assert "'app.ini'" in said[odd]
