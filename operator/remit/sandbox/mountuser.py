"""Whose files a mounted folder has: as which user an attempt runs. Pure, but for the host's database of users."""

from __future__ import annotations

import pwd
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from remit.errors import InvalidInput
from remit.sandbox.model import HostMount, Identities

_ROOT = 0


@dataclass(frozen=True, slots=True)
class User:
    """Who an attempt is outside of its sandbox. `shared`: also the host's other programs may be this user."""

    uid: int
    gid: int
    shared: bool


@dataclass(frozen=True, slots=True)
class Owned:
    """A mount, and the user and the group that own what is mounted."""

    mount: HostMount
    uid: int
    gid: int


def choose_user(found: Sequence[Owned], identities: Identities | None, operator: int) -> Owned | int | None:
    """Whose files the attempt's are: a uid that a policy asks for, an owner, or None: nobody's in particular.

    An `operator` that is an ordinary user (`identities` is None) stays that.

    Raises InvalidInput where a folder is to be written that the attempt's user does not own.
    """
    asked = {each.mount.run_as_user: each for each in found if each.mount.run_as_user is not None}
    if identities is None:
        _check_unchanged(found, asked, operator)
        return None
    if len(asked) > 1:
        users = " and ".join(f"{uid} for {each.mount.path}" for uid, each in sorted(asked.items()))
        raise _refused(found, f"policies have the task run as {users}; one task has one user")
    if asked:
        (uid,) = asked
        if uid == _ROOT:
            raise _refused(found, "a policy has the task run as root (runAsUser: 0), which no task does")
        return uid
    hosts = [each for each in found if not each.mount.internal]
    written = [each for each in hosts if not each.mount.read_only]
    for each in written:
        if each.uid == _ROOT:
            raise _refused(
                [each],
                f"{each.mount.path} is root's, and no task runs as root: change its owner, mount it ReadOnly, or have"
                " the policy's rule say runAsUser",
            )
        if _is_an_attempts(each.uid, identities):
            raise _refused([each], f"{each.mount.path} belongs to a task (uid {each.uid}), and only that has its files")
    owners = _by_owner(written) or _by_owner(
        each for each in hosts if each.uid != _ROOT and not _is_an_attempts(each.uid, identities)
    )
    if len(owners) > 1 and written:
        users = " and ".join(f"{each.mount.path} (uid {each.uid})" for each in owners)
        raise _refused(found, f"a task has one user, and cannot write to {users}; give them one owner")
    if len(owners) == 1:
        return owners[0]
    return next((each for each in found if each.mount.own and _is_an_attempts(each.uid, identities)), None)


def _check_unchanged(found: Sequence[Owned], asked: Iterable[int | None], operator: int) -> None:
    if others := sorted(uid for uid in asked if uid is not None and uid != operator):
        raise _refused(
            found, f"a policy has the task run as uid {others[0]}, and only an operator that is root can do so"
        )
    for each in found:
        if not each.mount.internal and not each.mount.read_only and each.uid != operator:
            raise _refused(
                [each],
                f"{each.mount.path} belongs to uid {each.uid}, and this operator's tasks are uid {operator}: change its"
                " owner, mount it ReadOnly, or run the operator as root",
            )


def user_of(choice: Owned | int, identities: Identities) -> User:
    """The user of that uid, in its primary group; where the host does not know it, in the group of what is mounted. The
    group root is nobody's."""
    uid = choice if isinstance(choice, int) else choice.uid
    try:
        gid = pwd.getpwuid(uid).pw_gid
    except KeyError:
        gid = uid if isinstance(choice, int) else choice.gid
    return User(uid, gid or uid, shared=True)


def _is_an_attempts(uid: int, identities: Identities) -> bool:
    return identities.first <= uid < identities.first + identities.count


def _by_owner(found: Iterable[Owned]) -> list[Owned]:
    return list({each.uid: each for each in found}.values())


def _refused(found: Sequence[Owned], message: str) -> InvalidInput:
    if len(found) == 1:
        return InvalidInput(message, field=found[0].mount.field)
    at = ", ".join(each.mount.mount_path for each in found)
    return InvalidInput(message, field=f"the volume at {at}")
