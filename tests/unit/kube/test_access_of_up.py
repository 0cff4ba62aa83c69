"""Tests the kubeconfig that `remit up` writes, without the official client's loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.controlplane.certificates import ensure_tls
from remit.controlplane.kubeconfig import write_kubeconfig
from remit.errors import InvalidInput
from remit.kube.access import Access
from remit.kube.kubeconfig import access_of_up


async def test_it_says_the_same_as_the_official_client(tmp_path: Path) -> None:
    tls = ensure_tls(tmp_path, ["127.0.0.1"])
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, "https://127.0.0.1:6443", tls.authority, "t0ken")
    own, official = access_of_up(path), await Access.load(path)
    assert (own.server, await own.authorization()) == (official.server, await official.authorization())
    trusted, expected = own.ssl_context(), official.ssl_context()
    assert trusted is not None
    assert expected is not None
    assert trusted.get_ca_certs() == expected.get_ca_certs()
    assert trusted.verify_flags == expected.verify_flags
    assert "t0ken" not in repr(own)


@pytest.mark.parametrize("text", ["", "[]", "clusters: []", "clusters: [{cluster: {server: x}}]\nusers: [{user: {}}]"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    with pytest.raises(InvalidInput):
        access_of_up(tmp_path / "kubeconfig")
