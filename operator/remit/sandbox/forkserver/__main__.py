"""`python -I -S FOLDER FD`: serve on the socket FD until its other end is closed."""

import sys
import types
from pathlib import Path

_FOLDERS = Path(__file__).parents[:3]

# The packages above by name only: what their __init__ import would be copied by every fork.
for name, folder in zip(("remit.sandbox.forkserver", "remit.sandbox", "remit"), _FOLDERS, strict=True):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(folder)]

from remit.sandbox.forkserver.server import main  # noqa: E402  # finds them as they are now

main(int(sys.argv[1]))
