"""The first steps of a process that `remit up` starts: `python -P __main__.py ROLE CHANNEL SUPERVISOR PACKAGES`.

It is run by its path and finds its packages where the supervisor did, so that both are of one version. CHANNEL is the
number of an inherited socket, SUPERVISOR the process that it must not outlive.
"""

from __future__ import annotations

import sys


def main() -> int:
    role, channel, supervisor, packages = sys.argv[1:]
    if packages not in sys.path:
        sys.path.insert(0, packages)  # before any other installed version
    from remit.libc import die_with

    die_with(int(supervisor))
    from remit.cli.supervisor.service import run

    return run(role, int(channel))


sys.exit(main())
