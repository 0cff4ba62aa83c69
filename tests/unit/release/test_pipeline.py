"""Tests the outcomes of the pipeline in named cases."""

from __future__ import annotations

import pytest

from releases import live, spec

pytestmark = pytest.mark.no_cover


def test_a_first_release_goes_live() -> None:
    sim = live("v1")
    assert sim.serving == "v1"
    assert sim.idle.revision is None


def test_the_next_one_is_switched_to_and_the_old_one_retired() -> None:
    sim = live("v1").apply(version="v2")
    assert sim.finish().outcome == "Promoted"
    assert sim.serving == "v2"
    assert sim.idle.revision == 1
    sim.settle()
    assert sim.idle.revision is None
    assert sim.state.release is not None
    assert sim.state.release.stage_record("Retire").state == "Done"


def test_a_version_that_never_gets_healthy_leaves_the_old_one_live() -> None:
    sim = live("v1").apply(version="v2")
    sim.behaviour["v2"] = "unhealthy"
    end = sim.finish()
    assert (end.outcome, end.reason) == ("Failed", "ProgressDeadlineExceeded")
    assert sim.serving == "v1"
    assert spec("v1")
