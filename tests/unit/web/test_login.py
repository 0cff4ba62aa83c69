"""Tests login links: they work once, for a limited time, and only a user who may read the page's file can create
them."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.errors import InvalidInput, RemitError
from remit.web import login

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


KEY = bytes(range(32))


def test_a_token_logs_in_once() -> None:
    logins, token = login.Logins(KEY, Clock()), login.mint(KEY, NOW)
    assert logins.redeem(token)
    assert not logins.redeem(token)
    assert logins.redeem(login.mint(KEY, NOW))


def test_a_token_that_is_too_old_does_not() -> None:
    clock = Clock()
    logins, token = login.Logins(KEY, clock), login.mint(KEY, NOW)
    clock.now += login.LIFETIME_SECONDS + 1
    assert not logins.redeem(token)


def test_no_used_token_comes_back_when_its_nonce_is_forgotten() -> None:
    clock = Clock()
    logins, token = login.Logins(KEY, clock), login.mint(KEY, NOW)
    assert logins.redeem(token)
    clock.now += login.LIFETIME_SECONDS
    assert not logins.redeem(token)
    clock.now += 2
    assert not logins.redeem(token)


def test_nothing_else_does() -> None:
    logins, token = login.Logins(KEY, Clock()), login.mint(KEY, NOW)
    expires, nonce, signature = token.split(".")
    later = f"{int(expires) + 1}.{nonce}.{signature}"
    other = f"{expires}.{nonce[:-1]}x.{signature}"
    forged = [
        later,
        other,
        f"{expires}.{nonce}.{'0' * 64}",
        f" {token}",
        f"{token}\n",
        token.upper(),
        "",
        ".",
        "a" * 9999,
    ]
    assert not any(logins.redeem(each) for each in forged)
    assert not login.Logins(bytes(32), Clock()).redeem(token)
    assert logins.redeem(token)


def test_the_page_s_file_is_for_its_owner(tmp_path: Path) -> None:
    made = login.write_page_file(tmp_path, "http://127.0.0.1:6480")
    assert login.read_page_file(tmp_path) == made
    assert (tmp_path / login.PAGE_FILE).stat().st_mode & 0o777 == 0o600
    assert login.write_page_file(tmp_path, "http://127.0.0.1:6480").key != made.key


def test_a_page_s_file_that_is_no_page_s_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RemitError, match=r"no page is served from .*; start it with 'remit up'"):
        login.read_page_file(tmp_path)
    for text in ("", "[]", '{"url": 3}', '{"url": "x", "key": "zz"}'):
        (tmp_path / login.PAGE_FILE).write_text(text)
        with pytest.raises(RemitError, match="is damaged"):
            login.read_page_file(tmp_path)
    (tmp_path / login.PAGE_FILE).unlink()
    (tmp_path / login.PAGE_FILE).symlink_to(__file__)
    with pytest.raises(InvalidInput, match="symbolic link"):
        login.read_page_file(tmp_path)
