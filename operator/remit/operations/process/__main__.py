"""A supervisor's first steps: become nobody's child, hear on stdin what to supervise, and let go of the terminal.

It is run by its path, isolated (`python -I __main__.py PACKAGES LABEL`), so that nothing in an environment or in a
working directory decides what it imports.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    if os.fork():
        os._exit(0)  # the operator has no child to wait for, and this process survives the operator
    os.umask(0o077)
    if sys.argv[1] not in sys.path:
        sys.path.insert(0, sys.argv[1])
    from remit.operations.process.supervisor import run

    run()


main()
