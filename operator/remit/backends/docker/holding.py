"""The container that holds the network namespace of an attempt, or the folders that are read when that has ended: what
the engine is told, what is then true. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from remit.backends.base import AttemptRequest
from remit.backends.docker.planning import (
    USER,
    attempt_labels,
    declared_volumes,
    in_memory,
    kept_folders,
    private_folders,
)

# Most of both limits is for the engine's own init program, which uses a dozen threads and 15 MiB for a moment before it
# executes ours.
_MEMORY: Final = 32 << 20
_TASKS: Final = 32
_VOLUME_BYTES: Final = 4096


def holder_name(container: str) -> str:
    """The name of the holder of an attempt's container."""
    return f"{container}-network"


def holding(request: AttemptRequest, image: Mapping[str, Any], program: str) -> dict[str, Any]:
    """The engine's `POST /containers/create` for the holder: of the attempt's image, of which it uses nothing.

    What an attempt wrote to memory is gone with the last container that has it. Where it is to be kept, that is this
    one, and the attempt has its folders from here.

    Its program is called `program`, in the root. By that its process is known: nobody can guess it, so no image has
    anything there, and no other process of a host is called so.
    """
    kept = kept_folders(request)
    return {
        "Image": image["Id"],
        "Entrypoint": [f"/{program}"],
        "Cmd": [],
        "User": f"{USER}:{USER}",
        "Healthcheck": {"Test": ["NONE"]},
        "Env": [],
        "WorkingDir": "/",
        "Labels": attempt_labels(request),
        # The first process of a container ignores SIGTERM, so an engine that stops would wait for it until its timeout.
        "StopSignal": "SIGKILL",
        "HostConfig": {
            "NetworkMode": "none",
            # The root file system cannot be read-only, because the program is copied in later. The container's user
            # cannot write to it either way.
            "ReadonlyRootfs": False,
            "Mounts": [
                *(in_memory(place, size) for place, size in kept.items()),
                *(in_memory(place, _VOLUME_BYTES) for place in declared_volumes(image) if place not in kept),
            ],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "IpcMode": "private",
            "Memory": _MEMORY,
            "MemorySwap": _MEMORY,
            "PidsLimit": _TASKS,
            "Init": False,
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
        },
    }


def looking(request: AttemptRequest, image: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's `POST /containers/create` for a container in which files of the attempt's image are looked at."""
    return _never_run(request, image, [])


def files_name(container: str) -> str:
    """The name of the container that receives the private files of an attempt's container."""
    return f"{container}-files"


def filling(request: AttemptRequest, image: Mapping[str, Any]) -> dict[str, Any]:
    """The same for one that takes the attempt's private files. An engine puts none into what is only to be read, as the
    attempt has them: a volume has all that the image has in that folder, such as others that anybody may write."""
    return _never_run(request, image, [{"Type": "volume", "Target": folder} for folder in private_folders(request)])


def _never_run(request: AttemptRequest, image: Mapping[str, Any], mounts: list[dict[str, Any]]) -> dict[str, Any]:
    mounted = {mount["Target"] for mount in mounts}
    # For a volume that the image declares, the engine would otherwise copy the image's content of that folder.
    declared = [in_memory(place, _VOLUME_BYTES) for place in declared_volumes(image) if place not in mounted]
    return {
        "Image": image["Id"],
        "Entrypoint": ["/never"],
        "Cmd": [],
        "Labels": attempt_labels(request),
        "HostConfig": {
            "NetworkMode": "none",
            "Mounts": [*mounts, *declared],
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
        },
    }


def is_process_of(holder: Mapping[str, Any], argv: Sequence[str]) -> bool:
    """Whether a process that was started with `argv` is that of the `holder`, as the engine inspected it."""
    return [holder["Path"], *holder["Args"]] == list(argv)
