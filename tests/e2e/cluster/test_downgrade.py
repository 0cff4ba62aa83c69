"""Tests an operator on a volume that a later version has written to."""

from __future__ import annotations

import pytest

from e2e.cluster.installation import Installation
from e2e.cluster.test_takeover import volumes
from remit.stateformat import STATE_FORMAT
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LATER = STATE_FORMAT + 1


def test_a_volume_of_a_later_version_is_refused_with_a_word(installation: Installation) -> None:
    its, kubectl, system = installation, installation.kubectl, installation.system
    with volumes(its) as chosen:
        its.upgrade(persistence={"enabled": True, "size": "1Gi", "storageClassName": chosen})
        its.run("on-a-volume", "echo", "kept")
        assert its.finished("on-a-volume")["phase"] == "Succeeded"
        (operator,) = its.operators()
        write = f"grep -qx {STATE_FORMAT} /var/lib/remit/format && echo {LATER} >/var/lib/remit/format"
        kubectl.ok("exec", "-n", system, operator, "--", "sh", "-c", write)
        its.kill()

        def refused() -> bool:
            said = kubectl("logs", "-n", system, operator).stdout
            return f"has format {LATER}, and this version of Remit reads {STATE_FORMAT} at most" in said

        def restarts() -> int:
            count = "jsonpath={.status.containerStatuses[0].restartCount}"
            return int(kubectl("get", "-n", system, operator, "-o", count).stdout or 0)

        try:
            wait_until(refused, "the refusal", seconds=120)
            its.run("meanwhile", "echo", "later")
            wait_until(lambda: restarts() > 1, "another start", seconds=120)
            wait_until(refused, "the refusal again", seconds=120)
            assert its.status("meanwhile") == {"phase": "Pending", "observedGeneration": -1}, "as it was created"
        finally:
            its.upgrade()  # upgrades to a pod's own folder
        assert its.finished("meanwhile")["phase"] == "Succeeded"
        kubectl.ok("delete", "-n", system, f"pvc/state-{its.release}-0", "--wait=false")
