"""Tests that docs/metrics.md matches the declared metrics."""

from __future__ import annotations

import metricspage


def test_the_page_is_the_generated_one() -> None:
    assert metricspage.PAGE.read_text() == metricspage.render(), "run `make docs`"


def test_no_label_holds_a_name_that_a_user_chose() -> None:
    labels = {label for each in metricspage.operator() + metricspage.control_plane() for label in each.labels}
    assert not labels & {"namespace", "task", "uid", "pod", "policy", "user", "image", "url", "path", "deployment"}
    queues = {each.name for each in metricspage.operator() if "name" in each.labels}
    assert all(name.startswith(("workqueue_", "leader_election_")) for name in queues)
