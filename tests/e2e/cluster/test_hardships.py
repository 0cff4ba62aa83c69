"""What becomes of running tasks when their operator is killed, upgraded, removed and installed again."""

from __future__ import annotations

from collections import Counter

import pytest

import clusters
from e2e.cluster.conftest import WAITS
from e2e.cluster.installation import Installation, command
from support import repetitions, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TASKS = 20
KILLS = repetitions(3, soak=10)
COUNTS = """
mkdir -p /tmp/www/cgi-bin
cat >/tmp/www/cgi-bin/count <<'END'
#!/bin/sh
echo "effect $QUERY_STRING" >>/tmp/effects
printf 'Content-Type: text/plain\\n\\ncounted\\n'
END
chmod 755 /tmp/www/cgi-bin/count
touch /tmp/effects
httpd -p $PORT -h /tmp/www
exec tail -f /tmp/effects
"""


def test_twenty_tasks_run_once_each_while_their_operator_is_killed(installation: Installation) -> None:
    """Fewer at a time than there are, so that after each kill some run, and some are yet to be started."""
    port = installation.ports[0]
    address = installation.serve("counter", clusters.busybox_image(), ("sh", "-c", COUNTS), port, PORT=str(port))
    script = f"busybox wget -q -O - 'http://{address}:{port}/cgi-bin/count?'$REMIT_TASK_NAME && sleep 3"
    names = [f"once-{number}" for number in range(TASKS)]

    def effects() -> Counter[str]:
        told = installation.kubectl.ok("logs", "-n", installation.namespace, "pod/counter").splitlines()
        return Counter(line.removeprefix("effect ") for line in told)

    installation.apply(*(command(name, "sh", "-c", script, image=clusters.busybox_image()) for name in names))
    for number in range(KILLS):
        seen = 1 + number * TASKS // KILLS
        wait_until(lambda seen=seen: len(effects()) >= seen, f"{seen} of them were at work", seconds=240)  # type: ignore[misc]
        installation.kill()

    ends = {name: installation.finished(name) for name in names}
    assert {name: (end["phase"], end["attemptCount"]) for name, end in ends.items()} == dict.fromkeys(
        names, ("Succeeded", 1)
    )
    assert {name: end["output"]["stdoutTail"] for name, end in ends.items()} == dict.fromkeys(names, "counted\n")
    assert effects() == Counter(names)


def test_an_upgrade_leaves_running_tasks_alone(installation: Installation) -> None:
    names = ["through-1", "through-2"]
    installation.apply(*(command(name, "sh", "-c", WAITS) for name in names))
    before = {name: installation.running(name) for name in names}
    was = installation.operators()

    installation.upgrade(acceptUnenforcedNetwork=True)

    wait_until(lambda: not {*was} & {*installation.operators()}, "the operator before is gone")
    for name, job in before.items():
        installation.let_go(job)
        status = installation.finished(name)
        assert (status["phase"], status["attemptCount"]) == ("Succeeded", 1), status
        assert status["output"]["stdoutTail"] == "begun\nended\n"
    installation.run("unenforced", "echo", network="none")
    status = installation.finished("unenforced")
    assert status["phase"] == "Succeeded", status
