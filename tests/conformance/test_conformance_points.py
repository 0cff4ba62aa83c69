"""Tests the suite itself: it has a kube-apiserver if one is required, and covers each of the forty points."""

from __future__ import annotations

import pytest

from conformance.harness.points import FORTY
from conformance.harness.servers import real_server_available
from parts import require


def test_a_real_kube_apiserver_judges() -> None:
    how = "set KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd (setup-envtest downloads them)"
    require("kube-apiserver", real_server_available(), how)


def test_every_point_has_a_scenario(request: pytest.FixtureRequest) -> None:
    assert len(FORTY) == 40
    shown = {
        point for item in request.session.items for point in getattr(getattr(item, "function", None), "points", ())
    }
    files = {item.path for item in request.session.items if item.path.parent == request.path.parent}
    if files < set(request.path.parent.glob("test_*.py")) or request.config.option.keyword:
        pytest.skip("only part of the suite is running")
    assert not set(FORTY) - shown
