"""Tests that the head of the audit trail is published where a user who may write the trail cannot change it."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from remit.kube.client import LEASES
from remit.telemetry.chain import Anchor
from remit.telemetry.verifying import verify


@pytest.mark.parametrize("leader_election", [True, False])
async def test_the_lease_and_the_metrics_have_the_head(world, leader_election: bool) -> None:
    """This includes `remit up`, which has no leader election."""
    if leader_election:
        await world.lease()
    async with world.operator(leader_election=leader_election) as operator:
        await world.policy("true")
        await world.finished(await world.task("true"))
        families = text_string_to_metric_families(operator.metrics.render()[0].decode())
        samples = {sample.name: sample.value for family in families for sample in family.samples}
        assert samples["remit_audit_head_seq"] == operator.audit.head.seq == samples["remit_audit_records_total"]
    lease = await world.kube.get(LEASES, world.settings.operator_namespace, "remit-operator")
    number, _, digest = lease["metadata"]["annotations"]["remit.dev/audit-head"].partition(":")
    trail = world.settings.state_dir / "audit" / "audit.jsonl"
    report = verify(trail, head=Anchor(int(number), digest))
    assert report.ok
    assert report.head == (int(number), digest)
