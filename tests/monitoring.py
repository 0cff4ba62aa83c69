"""Prometheus and Alertmanager for tests, from Debian's packages."""

from __future__ import annotations

import json
import math
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parts
from parts import require
from ports import free_port
from remitup import until


@contextmanager
def alertmanager(folder: Path) -> Iterator[str]:
    """Starts an Alertmanager and yields its URL. It may not answer yet."""
    program = parts.alertmanager()
    require("alertmanager", program, "apt-get install prometheus-alertmanager")
    assert program
    (folder / "am.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    address = f"127.0.0.1:{free_port()}"
    argv = [program, "--config.file", str(folder / "am.yml"), "--storage.path", str(folder / "data")]
    argv += ["--web.listen-address", address, "--cluster.listen-address", ""]
    with _running(argv, folder / "alertmanager.log"):
        yield f"http://{address}"


@dataclass(frozen=True)
class Prometheus:
    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """Returns the `data` of a response. Raises `AssertionError` with Prometheus' message if it refuses the
        request."""
        try:
            return get_json(f"{self.url}/api/v1/{path}", **parameters)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[float]:
        """Returns the values of a query's result, without those that are not numbers."""
        values = [float(each["value"][1]) for each in self.get("query", query=expression)["result"]]
        return [value for value in values if not math.isnan(value)]


@contextmanager
def prometheus(folder: Path, config: Path) -> Iterator[Prometheus]:
    """Starts a Prometheus that keeps exemplars, and waits until it answers."""
    program = parts.prometheus()
    require("prometheus", program, "apt-get install --no-install-recommends prometheus")
    assert program
    address = f"127.0.0.1:{free_port()}"
    argv = [program, "--config.file", str(config), "--storage.tsdb.path", str(folder / "data")]
    argv += ["--web.listen-address", address, "--enable-feature", "exemplar-storage"]
    with _running(argv, folder / "prometheus.log") as process:
        until(lambda: process.poll() is not None or _answers(f"http://{address}/-/ready"), "Prometheus")
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield Prometheus(f"http://{address}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30):
            return True
    except OSError:
        return False


def get_json(url: str, **parameters: str) -> Any:
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
        return json.load(answer)


@contextmanager
def _running(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as said, subprocess.Popen(argv, stdout=said, stderr=said) as process:
        try:
            yield process
        finally:
            process.terminate()
