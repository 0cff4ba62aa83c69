"""Tests `remit notify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ports import free_port
from remit.cli.app import app
from remit.errors import InvalidInput

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise imports it


def notify(folder: Path, *options: str, receivers: list[dict[str, Any]]) -> Any:
    (file := folder / "n.yaml").write_text(
        json.dumps({"receivers": receivers, "routes": [{"receivers": [receivers[0]["name"]]}]})
    )
    return CliRunner().invoke(app, ["notify", "--notifications", str(file), *options])


def test_what_is_configured(tmp_path: Path) -> None:
    receivers = [
        {"name": "ops", "apprise": {"urls": ["json://localhost/hook"]}},
        {"name": "am", "alertmanager": {"url": "http://localhost:9093"}},
    ]
    done = notify(tmp_path, receivers=receivers)
    assert (done.exit_code, done.output) == (0, "ops: valid; 1 route\nam: valid; no routes\n")


def test_what_is_configured_for_programs(tmp_path: Path) -> None:
    receivers = [
        {"name": "ops", "apprise": {"urls": ["json://localhost/hook"]}},
        {"name": "chat", "apprise": {"urls": ["nothing://hunter22@x"]}},
    ]
    done = notify(tmp_path, "-o", "json", receivers=receivers)
    assert done.exit_code == 1
    well, bad = json.loads(done.output)
    assert well == {"receiver": "ops", "routes": 1, "delivered": False, "problem": ""}
    assert (bad["receiver"], bad["routes"]) == ("chat", 0)
    assert "none that Apprise knows" in bad["problem"]
    assert "hunter22" not in done.output


def test_a_url_that_is_none(tmp_path: Path) -> None:
    done = notify(tmp_path, receivers=[{"name": "ops", "apprise": {"urls": ["nothing://hunter22@x"]}}])
    assert done.exit_code == 1
    assert done.output == "ops: URL 1 (nothing://…) is none that Apprise knows; see its documentation\n"


def test_a_receiver_that_does_not_take_it(tmp_path: Path) -> None:
    port = free_port()
    receivers = [
        {"name": "ops", "apprise": {"urls": [f"json://user:hunter22@127.0.0.1:{port}/hook"]}},
        {"name": "am", "alertmanager": {"url": f"http://127.0.0.1:{port}"}},
    ]
    done = notify(tmp_path, "--test", receivers=receivers)
    assert done.exit_code == 1
    first, second = done.output.splitlines()
    assert first == "ops: JSON did not take it (1 of 1 URLs)"
    assert second.startswith("am: the Alertmanager cannot be reached: ")
    done = notify(tmp_path, "--test", "--receiver", "am", receivers=receivers)
    assert done.output.startswith("am: ")


def test_an_unknown_receiver(tmp_path: Path) -> None:
    done = notify(tmp_path, "--receiver", "opps", receivers=[{"name": "ops", "apprise": {"urls": ["json://x"]}}])
    assert isinstance(done.exception, InvalidInput)
    assert str(done.exception) == "--receiver: there is no receiver 'opps'; there are: ops"
