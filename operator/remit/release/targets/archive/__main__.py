"""`python -I -S FOLDER PACKAGES ROOT MAX_BYTES MAX_MEMBERS`: unpack the archive on stdin into the folder open as ROOT.

Writes JSON to stdout where that fails: `message`, and `too_large` or `errno`. It runs confined, and may be killed.
"""

from __future__ import annotations

import json
import os
import sys
import types

# The parent packages are registered without being executed, because importing them takes longer than unpacking.
for _depth, _name in enumerate(("remit", "remit.release", "remit.release.targets", "remit.release.targets.archive")):
    sys.modules[_name] = types.ModuleType(_name)
    sys.modules[_name].__path__ = ["/".join([sys.argv[1], *_name.split(".")])]

from remit.release.targets.archive.destination import ArchiveRefused, Destination  # noqa: E402
from remit.release.targets.archive.members import MALFORMED, unpack_into  # noqa: E402

_MOST_OF_A_MESSAGE = 300


def main(root: int, max_bytes: int, max_members: int) -> dict[str, object] | None:
    """Unpack the archive. Return what went wrong, or None."""
    os.umask(0o022)
    try:
        with open(0, "rb", closefd=False) as file:
            unpack_into(Destination(root, max_bytes, max_members), file)
    except ArchiveRefused as error:
        return {"message": str(error), "too_large": error.too_large}
    except MemoryError:
        return {"message": "it takes too much memory to unpack", "too_large": True}
    except RecursionError:
        return {"message": "it is nested too deeply", "too_large": True}
    except OSError as error:
        if error.errno is not None:
            return {"message": error.strerror or str(error), "errno": error.errno}
        return _damaged(error)  # gzip and bz2 raise this for damaged data
    except MALFORMED as error:
        return _damaged(error)
    return None


def _damaged(error: Exception) -> dict[str, object]:
    """A short error. Libraries repeat names of any length, and the parent reads the pipe only at the end."""
    message = str(error)[:_MOST_OF_A_MESSAGE] or type(error).__name__
    return {"message": message if isinstance(error, RuntimeError) else f"it is damaged: {message}"}


if failure := main(*map(int, sys.argv[2:])):
    json.dump(failure, sys.stdout)
    sys.exit(1)
