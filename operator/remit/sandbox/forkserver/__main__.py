"""`python -I -S FOLDER CONTROL ORDERS`: serve on these two sockets until the other end of CONTROL is closed."""

import sys
import types

_FOLDERS = [__file__.rsplit("/", depth)[0] for depth in (1, 2, 3)]

# The parent packages are registered without being executed: every fork would copy what their __init__ imports.
for name, folder in zip(("remit.sandbox.forkserver", "remit.sandbox", "remit"), _FOLDERS, strict=True):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]

from remit.sandbox.forkserver.server import main  # noqa: E402  # finds them as they are now

main(int(sys.argv[1]), int(sys.argv[2]))
