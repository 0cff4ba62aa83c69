"""Tests `remit page` with the kubeconfig of a cluster: it is served locally until Ctrl-C by the user who runs it."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

import commandline
from conformance.harness.servers import Server, embedded
from pages import TIMEOUT
from remit.api.definitions import crds
from remit.cli.errors import report
from remit.kube.kubeconfig import extension
from remit.web import login
from remitpage import remit_page
from remitup import until
from support import Kubectl

TASK = """
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: NAME, namespace: default}
spec: {command: {argv: [echo]}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with embedded(tmp_path_factory.mktemp("cluster") / "state") as running:
        yield running


@pytest.fixture(scope="module")
def cluster(server: Server, kubectl: str, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Provides a cluster with Remit's kinds and a task. Its kubeconfig names no state directory."""
    made = Kubectl(kubectl, server.kubeconfig(tmp_path_factory.mktemp("user") / "config"))
    made.ok("apply", "--server-side", "-f", "-", given=yaml.safe_dump_all(crds()))
    until(lambda: made("apply", "-f", "-", given=TASK.replace("NAME", "seen")).returncode == 0, "the kinds")
    return made


def printed(*arguments: str, folder: Path, **env: str) -> tuple[str, str]:
    """Returns the output and the error output of `remit page`."""
    usual = dict.fromkeys(name for name in os.environ if name.startswith(("KUBE", "REMIT_STATE")))
    complaints = io.StringIO()
    with contextlib.redirect_stderr(complaints):
        done = commandline.invoke("page", *arguments, env={**usual, "HOME": str(folder), **env})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            assert report(done.exception) == 1
    return done.stdout, " ".join(f"{done.stderr}{complaints.getvalue()}".replace("│", " ").split())


def failed(*arguments: str, folder: Path, **env: str) -> str:
    said, complaint = printed(*arguments, folder=folder, **env)
    assert said == ""
    return complaint


def test_it_is_served_until_ctrl_c_and_its_link_works_once(cluster: Kubectl, server: Server, tmp_path: Path) -> None:
    with remit_page(tmp_path / "home", "--kubeconfig", str(cluster.kubeconfig), "--port", "0") as page:
        assert page.origin.startswith("http://127.0.0.1:")
        with page.looking() as looker:
            assert "remit-admin on 127.0.0.1:" in looker.get("/").text
            assert "/tasks/default/seen" in looker.get("/tasks").text
            with looker.live("/tasks") as events:
                cluster.ok("apply", "-f", "-", given=TASK.replace("NAME", "comes"))
                until(lambda: "/tasks/default/comes" in str(next(events)), "the new task")
            assert looker.post("/tasks/default/comes/cancel").headers["Location"] == looker.to("/tasks/default/comes")
            assert cluster.ok("get", "executiontask", "comes", "-o", "jsonpath={.spec.cancel}") == "true"
            texts = [looker.get(path).text for path in ("/", "/tasks/default/seen", "/policies", "/audit", "/nothing")]
            cookie = "".join(looker.client.cookies.values())
        with httpx.Client(base_url=page.origin, timeout=TIMEOUT, trust_env=False) as stranger:
            assert stranger.get(page.link).headers["Location"] == "/login?refused"
            assert stranger.get("/").headers["Location"] == "/login"
            assert "start it again" in stranger.get("/login?refused").text
            forged = login.login_url(login.new_page(page.origin), time.time())
            assert stranger.get(forged).headers["Location"] == "/login?refused"
        assert page.end() == 0
        told = page.log.read_text()
        for secret in (server.token, page.link.partition("token=")[2], cookie):
            assert secret
            assert not [text for text in (*texts, told) if secret in text]
        assert "Traceback" not in told
        with pytest.raises(httpx.ConnectError):
            httpx.get(page.origin, trust_env=False)
    assert sorted(path.name for path in (tmp_path / "home").rglob("*")) == ["log", "out"]  # no key was written


def test_the_paths_of_the_audit_trail_and_reports_are_shown(cluster: Kubectl, tmp_path: Path) -> None:
    with (
        remit_page(
            tmp_path / "home",
            "--kubeconfig",
            str(cluster.kubeconfig),
            "--port",
            "0",
            "--operator-namespace",
            "governed",
        ) as page,
        page.looking() as looker,
    ):
        audit = looker.get("/audit")
        assert audit.status_code == 200
        assert "kubectl exec -n governed POD -- remit audit show" in audit.text
        assert "<table" not in audit.text
        assert looker.post("/audit/check").status_code == 400


def test_a_used_port_is_reported_and_a_requested_port_is_never_replaced(cluster: Kubectl, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = failed("--kubeconfig", str(cluster.kubeconfig), "--port", port, folder=tmp_path)
    assert f"cannot serve on 127.0.0.1:{port}" in said
    config = str(cluster.kubeconfig)
    with remit_page(tmp_path / "one", KUBECONFIG=config) as one, remit_page(tmp_path / "two", KUBECONFIG=config) as two:
        assert one.origin != two.origin
        with two.looking() as looker:
            assert looker.get("/tasks").status_code == 200


def test_only_the_namespaces_that_are_named_are_shown(cluster: Kubectl, tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        cluster.ok("create", "namespace", name)
        cluster.ok("apply", "-f", "-", given=TASK.replace("NAME", f"of-{name}").replace("default", name))
    config = ("--kubeconfig", str(cluster.kubeconfig), "--port", "0")
    with remit_page(tmp_path / "home", *config, "-n", "first", "-n", "third") as page, page.looking() as looker:
        text = looker.get("/tasks").text
        assert "/tasks/first/of-first" in text
        assert "/tasks/third/of-third" in text
        assert "of-second" not in text
        assert "/tasks/default/seen" not in text
        assert "Shown: first, third" in text


def test_errors_at_the_start_are_reported_immediately(cluster: Kubectl, server: Server, tmp_path: Path) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"]["token"] = "another"
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    assert "log in again" in failed("--kubeconfig", str(tmp_path / "config"), folder=tmp_path)
    assert "there is no kubeconfig" in failed("--kubeconfig", str(tmp_path / "missing"), folder=tmp_path)
    assert "there is no kubeconfig" in failed(folder=tmp_path)
    too_many = [word for number in range(17) for word in ("-n", f"n{number}")]
    assert "name 16 at most" in failed(*too_many, folder=tmp_path)
    assert "is not the name of a namespace" in failed("-n", "../x", folder=tmp_path)
    said = failed(folder=tmp_path, KUBERNETES_SERVICE_HOST="10.0.0.1", KUBERNETES_SERVICE_PORT="443")
    assert "the service account of a pod" in said


def test_with_the_kubeconfig_of_remit_up_it_prints_the_link_to_its_page(cluster: Kubectl, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    made = login.write_page_file(state, "http://127.0.0.1:6499")
    config: dict[str, Any] = yaml.safe_load(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["extensions"] = [extension(state)]
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    for arguments in (["--kubeconfig", str(tmp_path / "config")], ["--state-dir", str(state)]):
        said, _ = printed(*arguments, folder=tmp_path)
        url, _, token = said.strip().partition("/login?token=")
        assert url == made.url
        assert login.Logins(made.key, time.time).redeem(token)
    said = failed("--kubeconfig", str(tmp_path / "config"), "-n", "default", folder=tmp_path)
    assert "remit up serves its page itself" in said
