"""A web server on a cluster that counts its requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import clusters
from e2e.cluster.installation import Installation

_SERVES = """
mkdir -p /tmp/www/cgi-bin
cat >/tmp/www/cgi-bin/count <<'END'
#!/bin/sh
echo "effect $QUERY_STRING" >>/tmp/effects
printf 'Content-Type: text/plain\\n\\ncounted\\n'
END
cat >/tmp/www/cgi-bin/hold <<'END'
#!/bin/sh
echo "effect $QUERY_STRING" >>/tmp/effects
until [ -e /tmp/go ]; do sleep 0.1; done
printf 'Content-Type: text/plain\\n\\nheld\\n'
END
chmod 755 /tmp/www/cgi-bin/*
touch /tmp/effects
exec httpd -f -p $PORT -h /tmp/www
"""


@dataclass(frozen=True)
class Counting:
    installation: Installation
    url: str
    """The address of a folder with `count`, which answers immediately, and `hold`, which answers when `let_go` was
    called. Both count the query."""

    def effects(self) -> Counter[str]:
        """Returns the counts of at least all requests that were answered. A log would have them with a delay."""
        its = self.installation
        told = its.kubectl.ok("exec", "-n", its.namespace, "counter", "--", "cat", "/tmp/effects").splitlines()
        return Counter(line.removeprefix("effect ") for line in told)

    def let_go(self) -> None:
        its = self.installation
        its.kubectl.ok("exec", "-n", its.namespace, "counter", "--", "touch", "/tmp/go")


@contextmanager
def counting(installation: Installation) -> Iterator[Counting]:
    """Runs the server on the node's port that `http.allow` lists."""
    port, argv = installation.ports[0], ("sh", "-c", _SERVES)
    with installation.serve("counter", clusters.busybox_image(), argv, port, PORT=str(port)) as address:
        yield Counting(installation, f"http://{address}:{port}/cgi-bin")
