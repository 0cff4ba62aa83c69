"""The program that runs an attempt's program in its container and puts all of it on the log: see `launch.c`."""

from __future__ import annotations

import base64
import functools
import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from remit.backends.kubernetes import labels
from remit.backends.kubernetes.objects import immutable_secret
from remit.errors import RemitError

FOLDER: Final = Path("/usr/libexec/remit")
"""Where the operator's image has it, by Kubernetes' name of each architecture: `launch-amd64`."""
PATH: Final = "/run/remit/launch"
"""Where it stands in a container."""
STDIN_PATH: Final = "/run/remit/stdin"
"""Where a container has the attempt's input."""
INPUT_PATH: Final = "/run/remit/input"
"""Where it has the volume that its input is a file of."""
KEY: Final = "launch"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Launcher:
    """`architecture` as `kubernetes.io/arch` has it: of the nodes that attempts run on."""

    architecture: str
    program: bytes

    @classmethod
    def load(cls, folder: Path = FOLDER, architecture: str = "") -> Launcher:
        """Raises `RemitError` where there is none: for the architecture of this machine, unless one is named."""
        machine = platform.machine()
        wanted = architecture or _ARCHITECTURES.get(machine, machine)
        path = folder / f"launch-{wanted}"
        try:
            return cls(wanted, path.read_bytes())
        except OSError as error:
            raise RemitError(
                f"the backend kubernetes needs {path} ({error.strerror}); the operator's image has it, and"
                " 'make launcher' builds it"
            ) from None

    @functools.cached_property
    def name(self) -> str:
        """The name of the Secret that contains the launcher. It changes with the program."""
        return f"remit-launcher-{self.architecture}-{hashlib.sha256(self.program).hexdigest()[:10]}"

    def secret(self, namespace: str) -> dict[str, Any]:
        """The Secret from which the pods of `namespace` get the launcher. It is no secret, but whoever may write there
        has a say in what runs."""
        metadata = {"name": self.name, "namespace": namespace, "labels": dict(labels.LAUNCHER)}
        return immutable_secret(metadata, {KEY: base64.b64encode(self.program).decode()})
