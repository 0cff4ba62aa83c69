"""Tests an operator's settings and kubeconfigs for a user without an entry in passwd, as in a container."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from remit.agent.folder import default_root
from remit.errors import RemitError, ResourceError
from remit.kube.access import Access, fallback_kubeconfig
from remit.kube.kubeconfig import state_dir_of
from remit.userpaths import default_state_dir


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr("os.geteuid", lambda: 65532)
    monkeypatch.setenv("HOME", "")  # so that monkeypatch restores it, whatever sets it
    for name in ("HOME", "KUBECONFIG", "XDG_STATE_HOME", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


async def test_there_is_no_kubeconfig() -> None:
    assert fallback_kubeconfig() is None
    assert state_dir_of(None) is None
    with pytest.raises(RemitError, match="there is no kubeconfig"):
        await Access.load()


def test_a_state_directory_has_to_be_named() -> None:
    assert default_state_dir() == Path("/nonexistent/.local/state/remit")
    with pytest.raises(ResourceError, match="no home directory; name a folder"):
        default_root()
