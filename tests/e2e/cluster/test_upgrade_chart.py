"""Tests upgrading the previous version's chart (tests/lastversion) to this version's with work in progress."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import clusters
from e2e.cluster.conftest import ANYWHERE, ROOT, WAITS
from e2e.cluster.counting import counting
from e2e.cluster.installation import API, Installation, command, task
from e2e.cluster.test_services import ROLLBACK, release
from e2e.cluster.test_takeover import volumes
from httpload import load
from lastversions import last_version
from operatorimage import build, operator_image
from ports import free_port
from support import Kubectl, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
LATE_SECONDS = 300
POLICY: dict[str, Any] = {
    "selector": {},
    "networks": ["none", "host"],
    "commands": {"allow": [{"executable": "echo"}, {"executable": "sh", "args": ["-c", "(?s).*"]}]},
    "environment": {"allow": ["VERSION"]},
    "containers": {"operations": ["run"]},
    "images": {"allow": [clusters.IMAGE]},
}


@dataclass(frozen=True)
class LastVersion:
    installation: Installation
    runs_jobs: bool
    """Whether its chart supports Jobs. Otherwise it only runs operations of the operator's own and releases."""

    def apply_crds(self, checkout: Path) -> None:
        self.installation.kubectl.ok("apply", "--server-side", "--force-conflicts", "-f", str(checkout / "crds"))

    def runs(self) -> dict[int, dict[str, Any]]:
        """Returns the runs that the schedule has started, by the minutes of their ticks."""
        found = self.installation.get("executiontasks", "-l", "remit.dev/schedule=minutely")["items"]
        runs = {int(each["metadata"]["name"].rpartition("-")[2]): each.get("status") or {} for each in found}
        assert len(runs) == len(found), "a tick has one run"
        return runs

    def finished_runs(self) -> list[int]:
        return sorted(minute for minute, status in self.runs().items() if status.get("completionTime"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return last_version(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def last(kubectl: str, checkout: Path) -> Iterator[LastVersion]:
    """Installs the previous version as its page says, in a separate namespace; an administrator applied the CRDs."""
    kubeconfig = clusters.kubeconfig()
    name = f"remit-{uuid.uuid4().hex[:8]}"
    chart = checkout / "charts/remit"
    values: dict[str, Any] = {
        "image": _image(clusters.loaded(build(checkout, "remit-operator:last"))),
        "namespaces": [name],
        "crds": {"install": False},
        "requestedBy": {"enabled": False},
        "releases": {"kubernetes": True},
    }
    installation = Installation(Kubectl(kubectl, kubeconfig), name, name, values, (free_port(), free_port()), chart)
    made = LastVersion(installation, "\nbackends:" in (chart / "values.yaml").read_text())
    with contextlib.ExitStack() as stack:
        stack.callback(installation.remove)
        stack.callback(installation.uninstall)
        stack.callback(made.apply_crds, ROOT)
        made.apply_crds(checkout)
        installation.kubectl.ok("create", "namespace", name)
        if made.runs_jobs:  # a Job that this version would create differently is recognized by its record only
            chosen = stack.enter_context(volumes(installation))
            values["persistence"] = {"enabled": True, "size": "1Gi", "storageClassName": chosen}
        installation.install()
        allowed = {"hosts": ["*"], "ports": [installation.ports[0]], "addresses": ANYWHERE}
        installation.apply(_object("CommandPolicy", "tests", POLICY | {"http": {"allow": [allowed]}}))
        yield made


def _image(name: str) -> dict[str, str]:
    repository, _, tag = name.partition(":")
    return {"repository": repository, "tag": tag, "pullPolicy": "Never"}


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}


async def test_what_is_under_way_goes_on_and_is_never_done_twice(last: LastVersion) -> None:
    its = last.installation
    kubectl, namespace = its.kubectl, its.namespace
    with counting(its) as counter:
        url, effects = counter.url, counter.effects
        minutely = {"cron": "* * * * *", "startingDeadlineSeconds": LATE_SECONDS, "successfulRunsHistoryLimit": 20}
        retry = {"onInterruption": "Retry", "backoff": {"initialSeconds": 1}}
        its.apply(
            release("shop", clusters.shop_image(), "v1"),
            task("minutely", http={"url": f"{url}/count?minutely"}, schedule=minutely),
            task("before", http={"url": f"{url}/count?before"}),
            task("once", http={"url": f"{url}/hold?once"}, timeoutSeconds=900),
            task("again", http={"url": f"{url}/hold?again"}, timeoutSeconds=900, retry=retry),
        )
        its.live("shop", 1)
        its.apply(release("shop", clusters.shop_image(), "v2"))
        its.live("shop", 2)
        before = its.finished("before")
        assert before["phase"] == "Succeeded", before
        job = _running_job(last)
        wait_until(lambda: effects()["once"] == effects()["again"] == 1, "both requests are held")
        wait_until(last.finished_runs, "a run of the schedule", seconds=150)
        host = its.get("service", "shop")["spec"]["clusterIP"]

        async with load(80, "new", 50, host) as requests:
            began = time.time()
            last.apply_crds(ROOT)
            its.upgrade(image=_image(operator_image()))
            ready = time.time()

            _see_what_ran(last, job, before)
            once = its.finished("once")
            wait_until(lambda: effects()["again"] == 2, "the second attempt")
            counter.let_go()
            again = its.finished("again")
            _see_policy_and_new_tasks(last)
            its.apply(release("shop", clusters.shop_image(), "v3"))
            its.live("shop", 3)
            kubectl.ok("annotate", "-n", namespace, "deployments.remit.dev/shop", ROLLBACK)
            wait_until(lambda: its.fetch("shop:80") == "v2", "what the version before released serves", seconds=90)
        assert requests.failed == []
        assert {answer.body for answer in requests.answers} == {"v2", "v3"}

        assert (once["phase"], [each["reason"] for each in once["attempts"]]) == ("Failed", ["Interrupted"]), once
        reasons = [each["reason"] for each in again["attempts"]]
        assert (again["phase"], reasons) == ("Succeeded", ["Interrupted", "Completed"]), again

        seen = max(last.runs())
        wait_until(lambda: max(last.finished_runs()) > max(seen, ready // 60), "two more runs", seconds=200)
        suspend = ("--type=merge", "-p", '{"spec": {"schedule": {"suspend": true}}}')
        kubectl.ok("patch", "-n", namespace, "executiontask/minutely", *suspend)
        runs = last.runs()
        wait_until(lambda: set(last.finished_runs()) == set(runs), "the last run")
        away = [minute for minute in range(min(runs), max(runs) + 1) if began < minute * 60 <= ready]
        assert set(range(min(runs), max(runs) + 1)) - set(runs) <= set(away[:-1]), "of what was missed the latest"
        ends = {minute: (status["phase"], status["attemptCount"]) for minute, status in last.runs().items()}
        assert ends == dict.fromkeys(runs, ("Succeeded", 1))
        assert effects() == Counter({"before": 1, "once": 1, "again": 2, "minutely": len(runs)})


def _running_job(last: LastVersion) -> dict[str, Any]:
    if not last.runs_jobs:
        return {}
    last.installation.run("through", "sh", "-c", WAITS)
    return last.installation.running("through")


def _see_what_ran(last: LastVersion, job: dict[str, Any], before: dict[str, Any]) -> None:
    """Asserts that this version's operator has the work of the previous one."""
    its = last.installation
    assert its.status("before") == before
    if job:
        (adopted,) = its.jobs("through")
        assert adopted["metadata"]["uid"] == job["metadata"]["uid"]
        its.let_go(adopted)
        status = its.finished("through")
        assert (status["phase"], status["attemptCount"]) == ("Succeeded", 1), status
        assert status["output"]["stdoutTail"] == "begun\nended\n"


def _see_policy_and_new_tasks(last: LastVersion) -> None:
    """A policy whose defaults the previous version set keeps its meaning, and reports what to do."""
    its = last.installation
    if not last.runs_jobs:
        assert its.get("commandpolicy", "tests")["spec"]["backends"] == ["process"]
        its.run("not-listed", "echo", "hello")
        denied = its.finished("not-listed")
        assert denied["phase"] == "Denied", denied
        told = its.get("commandpolicy", "tests")["status"]["conditions"]
        (ready,) = [each for each in told if each["type"] == "Ready"]
        assert "runs commands and scripts on kubernetes, and none of that is listed" in ready["message"]
        events = its.get("events", "--field-selector=reason=BackendsNotOffered")["items"]
        assert [each["involvedObject"]["name"] for each in events] == ["tests"]
        remedy = ("--type=json", "-p", '[{"op": "remove", "path": "/spec/backends"}]')
        its.kubectl.ok("patch", "-n", its.namespace, "commandpolicy/tests", *remedy)
    its.apply(command("hello", "echo", "hello from a Job"))
    status = its.finished("hello")
    assert (status["phase"], status["backend"]) == ("Succeeded", "kubernetes"), status
    assert status["output"]["stdoutTail"] == "hello from a Job\n"
