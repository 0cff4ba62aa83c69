from __future__ import annotations

import pytest

from parts import require


def test_what_is_found_lets_the_test_run() -> None:
    require("a part", "/usr/bin/part", "install it")


def test_a_missing_part_skips_on_a_users_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("REMIT_REQUIRE", "part")
    with pytest.raises(pytest.skip.Exception, match="part is missing: install it"):
        require("part", None, "install it")


def test_a_missing_part_fails_where_ci_must_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("REMIT_REQUIRE", "other,part")
    with pytest.raises(pytest.fail.Exception, match="part is missing: install it"):
        require("part", None, "install it")


def test_ci_may_lack_what_it_does_not_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("REMIT_REQUIRE", "apartment")
    with pytest.raises(pytest.skip.Exception):
        require("part", None, "install it")
