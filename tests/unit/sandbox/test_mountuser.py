"""Tests the user of an attempt with folders of the host."""

from __future__ import annotations

import os

import pytest

from remit.errors import InvalidInput
from remit.sandbox import HostMount, Identities
from remit.sandbox.mountuser import Owned, User, choose_user, user_of

NOBODYS = Identities(5000, 100)
ALICE, BOB, ROOT, AN_ATTEMPT = 70_001, 70_002, 0, 5007


def read(uid: int, **more: object) -> Owned:
    return Owned(HostMount(f"/at/{uid}", "/srv", f"/srv/{uid}", **more), uid, uid + 1)


def write(uid: int, **more: object) -> Owned:
    return read(uid, read_only=False, **more)


def chosen(*found: Owned, identities: Identities | None = NOBODYS, operator: int = 0) -> int | None:
    choice = choose_user(found, identities, operator)
    return choice.uid if isinstance(choice, Owned) else choice


@pytest.mark.parametrize(
    ("found", "user"),
    [
        ([], None),
        ([write(ALICE)], ALICE),
        ([write(ALICE), read(BOB), read(ROOT)], ALICE),
        ([write(ALICE), write(ALICE)], ALICE),
        ([read(ALICE)], ALICE),
        ([read(ALICE), read(ROOT)], ALICE),
        ([read(ALICE), read(BOB)], None),
        ([read(ROOT)], None),
        ([read(AN_ATTEMPT)], None),
        ([write(ROOT, run_as_user=ALICE)], ALICE),
        ([write(BOB, run_as_user=ALICE), read(BOB, run_as_user=ALICE)], ALICE),
        ([write(ROOT, own=True, internal=True)], None),
        ([write(ALICE), write(BOB, own=True, internal=True)], ALICE),
        ([write(AN_ATTEMPT, own=True, internal=True)], AN_ATTEMPT),
        ([read(ROOT, internal=True)], None),
    ],
)
def test_the_owner_of_what_is_mounted(found: list[Owned], user: int | None) -> None:
    assert chosen(*found) == user
    assert chosen(*reversed(found)) == user


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ([write(ROOT)], "root's, and no task runs as root"),
        ([write(ALICE), write(BOB)], "cannot write to"),
        ([write(ALICE), write(ROOT)], "root's"),
        ([write(AN_ATTEMPT)], "belongs to a task"),
        ([write(ALICE, run_as_user=ROOT)], "which no task does"),
        ([write(ALICE, run_as_user=ALICE), read(BOB, run_as_user=BOB)], "one task has one user"),
    ],
)
def test_whom_there_cannot_be(found: list[Owned], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        chosen(*found)


def test_an_ordinary_operator_stays_who_it_is() -> None:
    here = {"identities": None, "operator": ALICE}
    assert chosen(write(ALICE), read(BOB), read(ROOT), write(ROOT, internal=True), **here) is None
    assert chosen(write(ALICE, run_as_user=ALICE), **here) is None
    for found, why in (
        (write(BOB), "belongs to uid 70002"),
        (read(ALICE, run_as_user=BOB), "only an operator"),
    ):
        with pytest.raises(InvalidInput, match=why):
            chosen(found, **here)


def test_the_group_is_the_users_and_never_roots() -> None:
    assert user_of(read(ALICE), NOBODYS) == User(ALICE, ALICE + 1, shared=True), "unknown here, so that of the folder"
    assert user_of(Owned(read(ALICE).mount, ALICE, 0), NOBODYS) == User(ALICE, ALICE, shared=True)
    assert user_of(ALICE, NOBODYS) == User(ALICE, ALICE, shared=True)
    known = user_of(Owned(read(ALICE).mount, 65_534, 12_345), NOBODYS)
    assert known.gid != 12_345, "nobody's own"
    assert user_of(os.geteuid() or 1, NOBODYS).gid != 0
