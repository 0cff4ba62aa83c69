"""Tests the message of `remit up` about its page: with a login link on a terminal, and without one elsewhere."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest
import typer

from remit.cli import options
from remit.cli.supervisor import supervisor
from remit.web import login

URL = "http://127.0.0.1:6480"


@pytest.fixture
def settings(tmp_path: Path) -> supervisor.UpSettings:
    login.write_page_file(tmp_path, URL)
    return supervisor.UpSettings(tmp_path, "127.0.0.1", 0, None, {}, "console", "info")


def welcome(settings: supervisor.UpSettings, page: str) -> None:
    facts = {"url": "https://127.0.0.1:6443", "kubeconfig": "/state/kubeconfig"}
    supervisor._welcome(settings, facts, {"metrics_port": 9}, page)


def test_on_a_terminal_there_is_a_link_that_logs_in(
    settings: supervisor.UpSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    welcome(settings, URL)
    found = re.search(rf"{URL}/login\?token=(\S+)", capsys.readouterr().out)
    assert found
    assert login.Logins(login.read_page_file(settings.state_dir).key, time.time).redeem(found[1])


def test_a_file_or_a_journal_gets_none(
    settings: supervisor.UpSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    welcome(settings, URL)
    said = capsys.readouterr().out
    assert f"{URL} ('remit page'" in said
    assert "token" not in said


def test_without_a_page_nothing_is_said(settings: supervisor.UpSettings, capsys: pytest.CaptureFixture[str]) -> None:
    welcome(settings, "")
    assert "page" not in capsys.readouterr().out


@pytest.mark.parametrize("address", ["0.0.0.0:80", ":6480", "example.com:80", "192.0.2.1:80", "[::]:80", "127.0.0.1"])
def test_the_page_has_no_tls_so_it_stays_on_this_machine(address: str) -> None:
    with pytest.raises(typer.BadParameter):
        options.page_address(address)


def test_where_the_page_is() -> None:
    assert options.page_address("") == ("127.0.0.1", None)
    assert options.page_address("[::1]:0") == ("::1", 0)
    assert options.page_address("off") is None
