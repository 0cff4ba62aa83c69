"""Kills `remit up` with SIGKILL during each operation, and tests that each ends with one correct outcome and nothing
runs twice."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

import servers
import supervised
from dockers import docker, make_image, needs_docker, remove_image
from remitup import RemitUp, until

AGAIN = {"maxRetries": 3, "backoff": {"initialSeconds": 0}}


@contextmanager
def silent_host() -> Iterator[tuple[int, list[str]]]:
    """Provides a port that answers no requests, and the methods of the received requests."""
    asked: list[str] = []
    over = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.command)
            over.wait()

        do_POST = do_GET  # noqa: N815 (as the server looks for it)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            over.set()
            server.shutdown()
            thread.join()


def policy(folder: Path, port: int) -> dict[str, Any]:
    allow = {"hosts": ["127.0.0.1"], "ports": [port], "methods": ["GET", "POST"], "addresses": ["127.0.0.0/8"]}
    return {
        "commands": {"allow": [{"executable": "sh"}, {"executable": "sleep"}]},
        "backends": ["process", "docker"],
        "images": {"allow": ["remit-test:*"]},
        "containers": {"operations": ["run"]},
        "files": {"allow": [{"paths": [f"{folder}/**"], "operations": ["create"]}]},
        "http": {"allow": [allow]},
        "processes": {"operations": ["start", "status", "stop"]},
        "databases": {
            "postgres": {"secrets": ["db"], "statements": ["insert", "select"], "functions": ["pg_sleep"]},
            "redis": {"secrets": ["cache"], "commands": ["INCR"]},
        },
    }


def typed(kind: str, name: str, api: str = "remit.dev/v1alpha1", **body: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **body}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_in_the_midst_of_each_operation(own_up: RemitUp, tmp_path: Path) -> None:
    up, folder = own_up, tmp_path / "data"
    needs_docker()
    folder.mkdir()
    database, database_url = servers.postgres(_made(tmp_path / "db"))
    cache, cache_url = servers.valkey(_made(tmp_path / "cache"))
    database.start()
    cache.start()
    image = make_image()
    try:
        with (
            psycopg.connect(database_url, autocommit=True) as sql,
            redis.Redis.from_url(cache_url) as keys,
            silent_host() as (port, asked),
        ):
            sql.execute("CREATE TABLE t (i int)")
            keys.client_pause(600_000, all=False)  # the server accepts writes and does not answer them

            objects = [
                typed("CommandPolicy", "operations", spec=policy(folder, port)),
                typed("Secret", "db", "v1", stringData={"url": database_url}),
                typed("Secret", "cache", "v1", stringData={"url": cache_url}),
            ]
            connection = {"key": "url"}
            statements = [{"sql": "INSERT INTO t VALUES (1)"}, {"sql": "SELECT pg_sleep(600)"}]
            in_container = "echo begun; while ! test -e /workspace/go; do sleep 0.1; done; echo done"
            waited = {"action": "run", "wait": True, "remove": True, "image": image}
            waited["argv"] = ["sh", "-c", in_container.replace("/workspace", "/tmp")]
            specs = {
                "waited": {"container": waited},
                "container": {"command": {"argv": ["sh", "-c", in_container]}, "backend": "docker", "image": image},
                "download": {
                    "file": {
                        "operation": "create",
                        "path": f"{folder}/got",
                        "contentFrom": {"url": f"http://127.0.0.1:{port}/"},
                    }
                },
                "post": {"http": {"url": f"http://127.0.0.1:{port}/", "method": "POST"}},
                "insert": {"postgres": {"connection": {"name": "db", **connection}, "statements": statements}},
                "increment": {"redis": {"connection": {"name": "cache", **connection}, "commands": [["INCR", "n"]]}},
            }
            objects += [typed("ExecutionTask", name, spec={**spec, "retry": AGAIN}) for name, spec in specs.items()]
            serve = {"action": "start", "name": "server", "argv": ["sleep", "1000"]}
            objects.append(typed("ExecutionTask", "serve", spec={"process": serve}))
            up.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

            def sleeping() -> int:
                query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(600)'"
                row = sql.execute(query).fetchone()
                return int(row[0]) if row else 0

            def container() -> str:
                uid = up.task("container")["metadata"]["uid"]
                return f"remit-{uid}-1"

            def waited_for() -> str:
                return f"remit-{up.task('waited')['metadata']['uid']}"

            until(lambda: up.phase("serve") == "Succeeded", "the process to run")
            until(lambda: sorted(asked) == ["GET", "POST"], "both requests to arrive")
            until(lambda: sleeping() == 1, "the transaction to be in its midst")
            until(lambda: keys.info("clients")["blocked_clients"], "Redis to have the commands")
            until(lambda: b"begun" in docker("logs", container()).stdout, "the container to run")
            until(lambda: b"begun" in docker("logs", waited_for()).stdout, "the container that is waited for to run")
            (server,) = supervised.supervisors(up.state_dir / "processes")
            up.kill()
            keys.client_unpause()
            up.start()
            assert docker("exec", "-u", "65534", container(), "touch", "/workspace/go").returncode == 0
            assert docker("exec", waited_for(), "touch", "/tmp/go").returncode == 0
            names = list(specs)
            until(lambda: all(up.phase(name) in {"Succeeded", "Failed"} for name in names), "all to end", 60)
            ends = {name: up.task(name)["status"] for name in names}
            tried = {name: [attempt["reason"] for attempt in end["attempts"]] for name, end in ends.items()}

            # The containers are adopted with all of their output. The outcomes of the others are unknown, and none is
            # repeated.
            contained = ["container", "waited"]
            assert tried == {name: ["Completed" if name in contained else "Interrupted"] for name in names}
            assert [ends[name]["output"]["stdoutTail"] for name in contained] == ["begun\ndone\n"] * 2
            assert {end["error"]["category"] for end in ends.values() if "error" in end} == {"Interrupted"}
            assert sorted(asked) == ["GET", "POST"]
            until(lambda: sleeping() == 0, "the server to end the transaction", 60)
            assert sql.execute("SELECT count(*) FROM t").fetchone() == (0,)
            assert keys.get("n") in {None, b"1"}
            assert list(folder.iterdir()) == [], "of the download nothing is left"
            assert docker("inspect", container()).returncode != 0
            assert docker("inspect", waited_for()).returncode != 0
            # The process is the same one as before.
            assert supervised.supervisors(up.state_dir / "processes") == [server]
            stop = typed("ExecutionTask", "stop", spec={"process": {"action": "stop", "name": "server"}})
            up.kubectl("create", "-f", "-", stdin=json.dumps(stop))
            until(lambda: up.phase("stop") == "Succeeded", "the process to stop")
    finally:
        asyncio.run(supervised.end(up.state_dir / "processes"))
        remove_image(image)
        database.stop()
        cache.stop()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
