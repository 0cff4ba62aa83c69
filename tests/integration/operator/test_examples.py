"""Applies every example in manifests/examples unchanged, and tests that it ends as its first lines say."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import pythonimage
from dockers import docker, needs_docker
from remit.execution.schedule import PARENT_LABEL, child
from remit.kube.client import CONFIG_MAPS, DEPLOYMENTS, POLICIES, SECRETS, TASKS, Object
from remit.policy.testing import parse_policies, parse_suite, run_cases

from . import stages
from .conftest import World
from .test_schedules import wound

pytestmark = pytest.mark.no_cover

EXAMPLES = Path(__file__).parents[3] / "manifests" / "examples"
KINDS = {
    "Deployment": DEPLOYMENTS,
    "CommandPolicy": POLICIES,
    "ExecutionTask": TASKS,
    "ConfigMap": CONFIG_MAPS,
    "Secret": SECRETS,
}

Status = dict[str, Any]
Ending = Callable[[Status], bool]


def printed(status: Status) -> str:
    assert status["phase"] == "Succeeded", status["message"]
    return str(status["output"]["stdoutTail"])


def rows(status: Status) -> list[Any]:
    """Returns the result of each SQL statement."""
    return [json.loads(line)["rows"] for line in printed(status).splitlines()]


def results(status: Status) -> list[Any]:
    """Returns the result of each Redis command."""
    return [json.loads(line)["reply"] for line in printed(status).splitlines()]


def counts_in_a_container(status: Status) -> bool:
    name = json.loads(printed(status))["name"]
    inspected = docker("inspect", "--format={{.State.Running}} {{.Config.User}} {{.HostConfig.Memory}}", name)
    return inspected.stdout.decode().split() == ["true", "65534", str(16 * 1024**2)]


def paths(status: Status) -> set[str]:
    """Returns the names of the files for which a file operation printed a line."""
    return {Path(json.loads(line)["path"]).name for line in printed(status).splitlines()}


def report_is_copied(world: World, folder: Path) -> None:
    command = [sys.executable, "-m", "remit.cli", "cp", "task/traffic:report/index.html", str(folder)]
    command += ["--kubeconfig", str(world.control_plane.kubeconfig), "--state-dir", str(world.settings.state_dir)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command, env=environment, check=True, timeout=120)
    page = (folder / "index.html").read_text()
    assert "<tr><td>/cart<td>2<td>1\n" in page
    assert "&lt;b&gt;" in page


def answer_of(folder: Path, database: str, question: str) -> str:
    """Returns the result of a query from the stage's PostgreSQL server."""
    port = (folder / "data" / "postmaster.pid").read_text().splitlines()[3]
    return stages.ask_postgres(f"postgresql://admin:canary-password@127.0.0.1:{port}/", database, question)


def orders_are_restored(world: World, folder: Path) -> None:
    assert answer_of(folder, "shop_trial", "SELECT item FROM orders ORDER BY item") == "a chair\na lamp\n"


def posts_are_migrated(world: World, folder: Path) -> None:
    assert answer_of(folder, "blog", "SELECT likes FROM posts") == "7\n"


def packages_are_cached(world: World, folder: Path) -> None:
    assert list((world.settings.state_dir / "workspaces").rglob("_cacache/content-v2"))


def old_logs_are_gone(world: World, folder: Path) -> None:
    assert {path.name for path in folder.rglob("*.*")} == {"2026.log", "2025.csv"}


@dataclass(frozen=True)
class Promise:
    """How each task of an example ends, and on which stage it is tested."""

    endings: Mapping[str, Ending]
    stage: stages.Stage = stages.as_it_stands
    scheduled: Mapping[str, Ending] = field(default_factory=dict)
    """How a run of each scheduled task ends."""
    releases: Mapping[str, Ending] = field(default_factory=dict)
    """The state of each Deployment once it is healthy."""
    by_hand: Mapping[str, str] = field(default_factory=dict)
    """Names of runs that are started manually, by their schedules."""
    afterwards: Callable[[World, Path], None] = lambda world, folder: None
    """Checks the final state in the stage's folder and elsewhere."""

    @property
    def names(self) -> set[str]:
        return {*self.endings, *self.scheduled, *self.releases}


PROMISES: dict[str, Promise] = {
    "01-hello": Promise({"hello": lambda s: "$HOME and `id`" in printed(s)}),
    "02-retry": Promise({"flaky": lambda s: s["phase"] == "Succeeded" and s["attemptCount"] == 3}),
    "03-timeout": Promise({"endless": lambda s: s["phase"] == "TimedOut" and s["error"]["category"] == "Timeout"}),
    "04-env-and-secrets": Promise(
        {"greeter": lambda s: printed(s).splitlines() == ["good morning", "everyone", "green", "[redacted]"]}
    ),
    "05-limits": Promise(
        {
            "greedy": lambda s: (
                s["error"]["category"] == "Resources"
                if "cgroup" in s["sandbox"]["layers"]
                else s["phase"] != "Succeeded"
            )
        }
    ),
    "06-egress": Promise(
        {
            "download": lambda s: (
                s["phase"] == "Failed"
                and "policy default/example-egress names example.org" in s["attempts"][0]["network"]["lastDenied"]
            )
        }
    ),
    "07-locked-down-pod": Promise({"walled": lambda s: printed(s).split() == ["door", "wall"]}),
    "08-script": Promise({"adding": lambda s: printed(s) == "total 42\n"}),
    "09-file": Promise(
        {
            "write-motd": lambda s: s["phase"] == "Succeeded",
            "read-release": lambda s: printed(s) == Path("/usr/lib/os-release").read_text(),
        },
        stages.folder_of_the_test,
    ),
    "10-http": Promise({"fetch": lambda s: printed(s) == "<h1>Example Domain</h1>"}, stages.website),
    "11-postgres": Promise(
        {"census": lambda s: rows(s)[0][0]["schemaname"] == "pg_catalog" and rows(s)[1] == [{"sum": 42}]},
        stages.postgres,
    ),
    "12-process": Promise(
        {
            "start-web": lambda s: json.loads(printed(s))["phase"] == "Running",
            "look-at-web": lambda s: json.loads(printed(s))["name"] == "web",
        },
        stages.no_process_left,
    ),
    "13-redis": Promise({"visit": lambda s: results(s) == [1, 1, "1"]}, stages.redis),
    "14-container": Promise({"start-counter": counts_in_a_container}, stages.docker_engine),
    "27-toolchain": Promise({"tool": lambda s: printed(s) == "hello, world\n"}, stages.toolchain),
    "19-command-in-a-container": Promise({"boxed-hello": lambda s: printed(s) == "65534\n"}, stages.an_image),
    "15-schedule": Promise({}, scheduled={"nightly": lambda s: "UTC" in printed(s)}),
    "16-release": Promise({}, stages.site, releases={"site": lambda s: s["ready"] == "2/2"}),
    "17-release-docker": Promise({}, stages.boxed_site, releases={"boxed-site": lambda s: s["ready"] == "2/2"}),
    "20-python-tests": Promise(
        {
            "shop-dependencies": lambda s: s["artifacts"][0]["name"] == "deps" and s["artifacts"][0]["files"] > 0,
            "shop-tests": lambda s: s["phase"] == "Succeeded" and "Ran 1 test in" in s["output"]["stderrTail"],
        },
        stages.tested_shop,
    ),
    "21-build-a-wheel": Promise(
        {
            "build-wheel": lambda s: [(left["name"], left["files"]) for left in s["artifacts"]] == [("wheel", 1)],
            "try-wheel": lambda s: printed(s) == "total 42\n",
        },
        stages.built_shop,
    ),
    "22-report": Promise(
        {"traffic": lambda s: s["results"] == [{"name": "requests", "value": "4"}]},
        stages.logged_requests,
        afterwards=report_is_copied,
    ),
    "23-nightly-dump": Promise(
        {"try-restore": lambda s: s["phase"] == "Succeeded" and s["volumes"][0]["name"] == "dump"},
        stages.postgres_with_a_shop,
        scheduled={
            "nightly-dump": lambda s: [(left["name"], left["files"]) for left in s["artifacts"]] == [("dump", 1)]
        },
        by_hand={"nightly-dump": "dump-by-hand"},
        afterwards=orders_are_restored,
    ),
    "24-clean-up": Promise(
        {"look-for-old-logs": lambda s: paths(s) == {"web.log", "2025.log"}},
        stages.logs_of_a_shop,
        scheduled={"remove-old-logs": lambda s: paths(s) == {"web.log", "2025.log"}},
        afterwards=old_logs_are_gone,
    ),
    "25-release-migration": Promise(
        {},
        stages.blog_with_a_migration,
        releases={"blog": lambda s: s["ready"] == "1/1"},
        afterwards=posts_are_migrated,
    ),
    "26-npm-tests": Promise(
        {"cart-tests": lambda s: "pass 1\n" in printed(s)}, stages.tested_cart, afterwards=packages_are_cached
    ),
}


def examples() -> list[str]:
    """Returns all examples except for starter policies, which have no task, and releases to a cluster, which are tested
    on one."""
    found = sorted(path.stem for path in EXAMPLES.glob("*.yaml") if not path.stem.startswith("00-"))
    return [name for name in found if not name.endswith("-kubernetes")]


@pytest.mark.timeout(600)  # for the example that waits for the Docker engine
@pytest.mark.parametrize("name", examples())
async def test_an_example_ends_as_it_promises(world: World, tmp_path: Path, name: str) -> None:
    assert name in PROMISES, f"say in PROMISES how the tasks of {name}.yaml end"
    promise, text = PROMISES[name], (EXAMPLES / f"{name}.yaml").read_text()
    (tmp_path / "stage").mkdir()
    async with promise.stage(tmp_path / "stage") as changes, world.operator() as operator:
        for written, tried in changes.items():
            assert written in text, f"{name}.yaml no longer has {written}"
            text = text.replace(written, tried)
        objects: list[Object] = list(yaml.safe_load_all(text))
        for obj in objects:
            await world.kube.create(KINDS[obj["kind"]], "default", obj)
        names = {obj["metadata"]["name"] for obj in objects if obj["kind"] in {"ExecutionTask", "Deployment"}}
        assert names == promise.names, f"PROMISES speaks of others than {name}.yaml has"
        for release, as_promised in promise.releases.items():
            status = await world.until(release, lambda status: status.get("phase") == "Healthy", DEPLOYMENTS)
            assert as_promised(status), status
        for schedule, run_name in promise.by_hand.items():
            await run_by_hand(world, schedule, run_name)
        for task, as_promised in promise.endings.items():
            status = await world.finished(task)
            assert as_promised(status), status
        for task, as_promised in promise.scheduled.items():
            waiting = await world.until(task, lambda status: bool(status.get("nextScheduleTime")))
            clock = wound(operator)
            due = datetime.datetime.fromisoformat(waiting["nextScheduleTime"]) - clock()
            clock.turn(f"default/{task}", seconds=due.total_seconds() + 60)
            await world.until(task, lambda status: bool(status.get("lastScheduleTime")))
            runs = await world.kube.list(TASKS, "default", label_selector=f"{PARENT_LABEL}={task}")
            (run,) = {run["metadata"]["name"] for run in runs} - {promise.by_hand.get(task)}
            status = await world.finished(run)
            assert as_promised(status), status
        await asyncio.to_thread(promise.afterwards, world, tmp_path / "stage")
    assert stages.AUTHORIZATION not in json.dumps(await world.kube.list(TASKS, "default"))


@pytest.fixture
def python() -> Iterator[str]:
    """Provides an image with Python."""
    needs_docker()
    name = f"remit-test-{uuid.uuid4().hex}:python"
    made = docker("import", "-", name, input=pythonimage.tree())
    assert made.returncode == 0, made.stderr
    yield name
    docker("rmi", "-f", name)


async def test_an_example_with_files_in_a_container(world: World, tmp_path: Path, python: str) -> None:
    """Tests the report with a file of the host and an artifact. An operator that is not root cannot mount files for an
    engine."""
    promise, text = PROMISES["22-report"], (EXAMPLES / "22-report.yaml").read_text()
    (tmp_path / "stage").mkdir()
    async with promise.stage(tmp_path / "stage") as changes, world.operator():
        for written, tried in changes.items():
            text = text.replace(written, tried)
        for obj in yaml.safe_load_all(text):
            allowed = {"backends": ["docker"], "images": {"allow": ["remit-test-*"]}}
            obj["spec"] |= allowed if obj["kind"] == "CommandPolicy" else {"backend": "docker", "image": python}
            await world.kube.create(KINDS[obj["kind"]], "default", obj)
        status = await world.finished("traffic")
        if os.geteuid():
            assert status["attempts"][0]["reason"] == "SandboxUnavailable"
            assert "an operator that is root, with CAP_SYS_ADMIN; or use backend: process" in status["message"]
            return
        assert promise.endings["traffic"](status), status
        await asyncio.to_thread(promise.afterwards, world, tmp_path / "stage")


async def run_by_hand(world: World, schedule: str, name: str) -> None:
    """Starts a run like `remit run --from-schedule SCHEDULE --name NAME`."""
    run = child(await world.get(schedule), None)
    await world.kube.create(TASKS, "default", {**run, "metadata": {**run["metadata"], "name": name}})


async def test_the_written_file_is_the_config_maps(world: World, tmp_path: Path) -> None:
    text = (EXAMPLES / "09-file.yaml").read_text().replace("/var/tmp/", f"{tmp_path}/")
    async with world.operator():
        for obj in yaml.safe_load_all(text):
            await world.kube.create(KINDS[obj["kind"]], "default", obj)
        await world.finished("write-motd")
    written = tmp_path / "remit-example-motd"
    assert (written.read_text(), written.stat().st_mode & 0o777) == (
        "Planned work tonight from 22:00 to 23:00 UTC.\n",
        0o644,
    )


def test_the_promises_are_of_examples_that_are_there() -> None:
    assert PROMISES.keys() <= set(examples())


def test_the_folders_page_lists_every_file() -> None:
    page = (EXAMPLES / "README.md").read_text()
    missing = [path.name for path in EXAMPLES.glob("*.yaml") if f"({path.name})" not in page]
    assert not missing


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.test.yaml")), ids=lambda path: path.stem)
def test_a_policy_test_among_the_examples_holds(path: Path) -> None:
    suite = parse_suite(path.read_text())
    policies = [policy for name in suite.policies for policy in parse_policies((path.parent / name).read_text())]
    assert [(result.title, result.mismatches) for result in run_cases(suite, policies) if not result.passed] == []


async def test_the_starter_policy_lets_a_task_run(world: World) -> None:
    """The policy must not require anything that an ordinary host lacks."""
    async with world.operator():
        policy = yaml.safe_load((EXAMPLES / "00-starter-policy.yaml").read_text())
        await world.kube.create(POLICIES, "default", policy)
        labels = policy["spec"].get("selector", {}).get("matchLabels", {})
        status = await world.finished(await world.task("echo", "hello", labels=labels))
    assert (status["phase"], status["output"]["stdoutTail"]) == ("Succeeded", "hello\n")
