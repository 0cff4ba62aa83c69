"""The objects that the API server is asked to make for an attempt, and the confinement that they give. Pure."""

from __future__ import annotations

import base64
import dataclasses
import json
import posixpath
from collections.abc import Mapping
from typing import Any, Final

from remit.api.group import API_VERSION
from remit.backends.base import JOB_ARTIFACT_BYTES, AttemptRequest
from remit.backends.confinementstatus import ConfinementStatus
from remit.backends.filetree import place_of
from remit.backends.kubernetes import fileparts, labels
from remit.backends.kubernetes.launcher import INPUT_PATH, KEY, PATH, STDIN_PATH, Launcher
from remit.backends.kubernetes.objects import (
    CONTAINER_SECURITY,
    immutable_secret,
    one_pod_job,
    policy_of_network,
)
from remit.backends.kubernetes.workspaceclaim import claim_name, claims
from remit.errors import InvalidInput, SandboxUnavailable
from remit.sandbox import (
    NETWORK_PACE,
    NOT_ENFORCED,
    ClaimMount,
    Confinement,
    EmptyMount,
    FilesMount,
    HostMount,
    Layer,
    Network,
)
from remit.sandboxpaths import WORKSPACE

CONTAINER: Final = "task"
"""The container that the program runs in."""
_VERSIONS: Final = "remit.dev/secret-versions"
LAYERS: Final = (Layer.NAMESPACES, Layer.SECCOMP, Layer.CGROUP)
MISSING: Final = tuple(layer for layer in Layer if layer not in LAYERS)
MOST_PRIVATE_BYTES: Final = 1 << 20
"""Limit of a Secret, which an attempt's private files, input and secret variables share."""
COLLECTING_SECONDS: Final = 300
"""How long it may take to tell of the files of a program that has ended."""
_TELLING_SECONDS: Final = 60
"""The same where its pod is to go."""
SPARE_SECONDS: Final = 300
"""How long after an attempt's own end Kubernetes ends it, should no operator do."""
_REQUESTED: Final = {"cpu": 0.1, "memory": 64 << 20}
"""The most that the scheduler keeps free for an attempt. Its limits are the most that it may use."""
_HELD_SECONDS: Final = 30
"""For a network plugin to know of a new pod."""
_UNHELD: Final = {
    "pids": "spec.resources.pids",
    "file_bytes": "spec.resources.fileSize",
    "open_files": "spec.resources.openFiles",
    "disk_bytes_per_second": "spec.resources.diskBytesPerSecond",
    "network_bytes_per_second": "spec.resources.networkBytesPerSecond",
}
"""Limits that a Job has no field for. The network's is held by the egress gateway, with `network: restricted`."""
_BUT_THE_GATEWAY: Final = "and one that lets it out to its egress gateway"


def job_name(attempt_id: str) -> str:
    """The same for an attempt wherever and whenever it is asked for."""
    return f"remit-{attempt_id}"


def enforcement_of(confinement: Confinement, *, isolated: bool | None = True) -> ConfinementStatus:
    """`isolated`: whether NetworkPolicies hold here, and with them `network: none` and `restricted`; None: nobody has
    tried.

    Raises:
        SandboxUnavailable: a required layer is missing, or a limit that is asked for cannot be held.
    """
    if lacking := sorted(confinement.require & set(MISSING)):
        raise SandboxUnavailable(
            f"a Job cannot have {', '.join(lacking)}, and a policy requires it (spec.sandbox.require); leave that out"
            " of the policy, or use backend: process"
        )
    limits, network = confinement.limits, confinement.network
    held = {"network_bytes_per_second"} if network == "restricted" else set[str]()
    if unheld := [field for name, field in _UNHELD.items() if name not in held and getattr(limits, name) is not None]:
        raise SandboxUnavailable(
            f"nothing holds {' and '.join(unheld)} for a Job; leave it out of the task and of limits in policies, or"
            " use backend: process"
        )
    holders = {
        "memory_bytes": "cgroup",
        "cpu_cores": "cgroup",
        "disk_bytes": "eviction by the kubelet",
        "network_bytes_per_second": NOT_ENFORCED if isolated is False else NETWORK_PACE[network],
    }
    given = {name: by for name, by in holders.items() if getattr(limits, name) is not None}
    if network != "host" and isolated is not None:
        by = f"NetworkPolicy {network_policy_name(network)}"
        given["network"] = NOT_ENFORCED if not isolated else by if network == "none" else f"{by}, {_BUT_THE_GATEWAY}"
    return ConfinementStatus(LAYERS, MISSING, given)


def network_policy_name(network: Network) -> str:
    return f"remit-network-{network}"


def network_policy(namespace: str, network: Network) -> dict[str, Any]:
    """The namespace's, for pods of `none` or `restricted`: they neither speak nor hear."""
    metadata = {"name": network_policy_name(network), "namespace": namespace, "labels": dict(labels.OURS)}
    spec = {"podSelector": {"matchLabels": {labels.NETWORK: network}}, "policyTypes": ["Ingress", "Egress"]}
    return policy_of_network(metadata, spec)


@dataclasses.dataclass(frozen=True)
class Secrets:
    """The parts of an attempt that must not be readable in its Job, by their keys in a Secret, and where they go."""

    data: Mapping[str, bytes]
    variables: Mapping[str, str]
    files: Mapping[str, str]

    @classmethod
    def of(cls, request: AttemptRequest) -> Secrets:
        """Raises `InvalidInput` where it is more than a Secret holds."""
        command, data = request.command, dict[str, bytes]()
        variables, files = dict[str, str](), dict[str, str]()
        for number, name in enumerate(sorted(command.env)):
            if name not in command.public:
                variables[name] = f"env-{number}"
                data[f"env-{number}"] = command.env[name].encode("utf-8", "surrogateescape")
        contents = {**request.files, **({STDIN_PATH: command.stdin} if command.stdin else {})}
        for number, (path, content) in enumerate(sorted(contents.items())):
            files[path] = f"file-{number}"
            data[f"file-{number}"] = content
        if (size := sum(map(len, data.values()))) > MOST_PRIVATE_BYTES:
            raise InvalidInput(
                f"its private files, input and variables have {size} bytes, and a Job takes {MOST_PRIVATE_BYTES};"
                " put large ones into a workspace"
            )
        return cls(data, variables, files)

    def object(self, request: AttemptRequest) -> dict[str, Any]:
        """The Secret, which goes with its task."""
        data = {key: base64.b64encode(value).decode() for key, value in self.data.items()}
        return immutable_secret(metadata_of(request), data)


def job(request: AttemptRequest, secrets: Secrets, launcher: Launcher) -> dict[str, Any]:
    """The Job that makes one pod, once."""
    grace, network = int(request.grace_seconds), request.confinement.network
    collecting = COLLECTING_SECONDS if request.kept else 0
    telling = _TELLING_SECONDS if any(each.always for each in request.kept) else 0
    metadata = metadata_of(request)
    return one_pod_job(
        metadata,
        int(request.timeout_seconds) + grace + collecting + SPARE_SECONDS,
        {**metadata["labels"], labels.NETWORK: network},
        request.pod,
        launcher.architecture,
        {
            "terminationGracePeriodSeconds": grace + telling,
            "containers": [_container(request, secrets)],
            "volumes": _volumes(request, secrets, launcher),
        },
    )


def until_held(seconds: int) -> list[str]:
    """The options by which the launcher starts a program without network only once there is none, and how long it waits
    for that: a network plugin may know of the pod a moment late."""
    return ["-w", str(seconds)]


def with_held_network(job: dict[str, Any]) -> None:
    """Have the program of a Job wait for that."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["command"][1:1] = until_held(_HELD_SECONDS)


def runs(job: Mapping[str, Any]) -> Any:
    """What a Job runs, how, and with which inputs, without the limits, which policies may change while it runs, and
    what the server says for each Job anew."""
    spec = {name: value for name, value in job["spec"].items() if name not in _OF_EACH_JOB}
    about = spec["template"].get("metadata") or {}
    own = {name: value for name, value in (about.get("labels") or {}).items() if not _names_job(name)}
    pod = {**spec["template"]["spec"], "terminationGracePeriodSeconds": 0}
    parts = [name for name in ("containers", "initContainers") if name in pod]
    pod |= {name: [_without_limits(each) for each in pod[name]] for name in parts}
    pod["volumes"] = [{**each, "emptyDir": {}} if "emptyDir" in each else each for each in pod.get("volumes") or []]
    return {**spec, "template": {"labels": own, "annotations": about.get("annotations") or {}, "spec": pod}}


def _names_job(label: str) -> bool:
    return label.removeprefix("batch.kubernetes.io/") in {"controller-uid", "job-name"}


_OF_EACH_JOB: Final = frozenset({"selector", "suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished"})
"""Which one it is, whether somebody's queue has let it in, and how long it may take."""


def _without_limits(container: Mapping[str, Any]) -> dict[str, Any]:
    command = list(container.get("command") or ())
    options = command.index("--") if "--" in command else 0
    for at in range(options - 1):
        if command[at] in {"-m", "-k"}:
            command[at + 1] = ""
    if command[1:2] == ["-w"] and options:  # this option depends on whether the cluster enforces NetworkPolicies
        del command[1:3]
    return {**container, "resources": {}, "command": command}


def is_of_attempt(obj: Mapping[str, Any], job: str = "") -> bool:
    """Whether it has the label of the attempt of that Job; empty: of the name that it has itself. Anybody may give it
    that."""
    has = obj["metadata"].get("labels") or {}
    return bool((job or obj["metadata"]["name"]) == job_name(has.get(labels.ATTEMPT, "")))


def belongs_to(obj: Mapping[str, Any], uid: str) -> bool:
    """Whether the object `uid` controls it. Anybody may say so."""
    return bool(uid) and any(
        owner.get("uid") == uid and owner.get("controller") for owner in obj["metadata"].get("ownerReferences") or []
    )


def _versions(request: AttemptRequest) -> str:
    return json.dumps(dict(request.secret_versions), sort_keys=True)


def secret_versions_of(job: Mapping[str, Any]) -> dict[str, str]:
    """Which versions of Secrets the attempt of a Job was given. Raises nothing: what cannot be read is none of them."""
    try:
        found = json.loads((job["metadata"].get("annotations") or {}).get(_VERSIONS, ""))
    except ValueError:
        return {"": ""}
    return found if isinstance(found, dict) else {"": ""}


def files_secret(request: AttemptRequest, part: fileparts.Part) -> dict[str, Any]:
    """The Secret with a part of what is mounted, which goes with its task. Blocks; raises OSError."""
    return immutable_secret({**metadata_of(request), "name": part.name}, part.read())


def metadata_of(request: AttemptRequest) -> dict[str, Any]:
    own = {**labels.OURS, labels.ATTEMPT: request.id}
    metadata: dict[str, Any] = {"name": job_name(request.id), "labels": own}
    if (task := request.task) is not None:
        owner = {"apiVersion": API_VERSION, "kind": "ExecutionTask", "name": task.name, "uid": task.uid}
        metadata |= {
            "annotations": {"remit.dev/task": task.name, _VERSIONS: _versions(request)},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": False}],
        }
    return metadata


def _container(request: AttemptRequest, secrets: Secrets) -> dict[str, Any]:
    command, name = request.command, job_name(request.id)
    launch = [PATH, "-C", request.confinement.working_dir]
    if (volume := request.confinement.stdin_volume) is not None:
        launch += ["-I", INPUT_PATH, "-i", volume.sub_path]
    elif command.stdin:
        launch += ["-i", STDIN_PATH]
    for path in request.texts:
        launch += ["-r", path]
    launch += _kept(request)
    plain = [
        {"name": variable, "value": unexpanded(command.env[variable])}
        for variable in sorted(command.env)
        if variable in command.public
    ]
    secret = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
        for variable, key in secrets.variables.items()
    ]
    return {
        "name": CONTAINER,
        "image": request.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [unexpanded(argument) for argument in (*launch, "--", *command.argv)],
        "env": plain + secret,
        "resources": _resources(request),
        "terminationMessagePolicy": "File",
        "securityContext": dict(CONTAINER_SECURITY),
        "volumeMounts": _mounts(request, secrets),
    }


def _kept(request: AttemptRequest) -> list[str]:
    """The options that tell the launcher which files are kept."""
    mounts = request.confinement.mounts
    places = [WORKSPACE, *(mount.mount_path for mount in mounts if isinstance(mount, EmptyMount | ClaimMount))]
    options: list[str] = []
    for each in request.kept:
        place = place_of(each.pattern, places)
        if place is None:
            raise InvalidInput(f"{each.pattern} is in no folder that a Job keeps files of", field="spec.artifacts")
        below = posixpath.relpath(each.pattern, place)
        options += [
            "-P",
            place,
            "-m",
            str(each.most_bytes),
            "-A" if each.always else "-a",
            "" if below == "." else below,
        ]
    if any(each.always for each in request.kept):
        options += ["-k", str(int(request.grace_seconds))]
    return options


def unexpanded(text: str) -> str:
    """The text as the kubelet has to be given it, which replaces `$(NAME)` and takes `$$` for `$`."""
    return text.replace("$", "$$")


def _resources(request: AttemptRequest) -> dict[str, Any]:
    confinement, limits = request.confinement, request.confinement.limits
    most: dict[str, str] = {}
    least: dict[str, str] = {}
    if limits.cpu_cores is not None:
        most["cpu"] = f"{round(limits.cpu_cores * 1000)}m"
    if limits.memory_bytes is not None:
        most["memory"] = str(limits.memory_bytes)
    if limits.disk_bytes is not None:
        places = 2 + sum(isinstance(mount, EmptyMount) for mount in confinement.mounts)
        log = _LOG_BYTES + (2 * JOB_ARTIFACT_BYTES if request.kept else 0)
        most["ephemeral-storage"] = str(limits.disk_bytes * places + log)
    cpu = min(_REQUESTED["cpu"], limits.cpu_cores or _REQUESTED["cpu"])
    least["cpu"] = f"{round(cpu * 1000)}m"
    least["memory"] = str(int(min(_REQUESTED["memory"], limits.memory_bytes or _REQUESTED["memory"])))
    if "ephemeral-storage" in most:
        least["ephemeral-storage"] = "0"  # without an explicit request, Kubernetes would request the limit
    return {"limits": most, "requests": least}


_LOG_BYTES: Final = 64 << 20
"""What a container's logs may take besides: they count as the pod's, and the kubelet rotates them."""


def _empty_folders(request: AttemptRequest) -> dict[str, int | None]:
    """The private folders of an attempt, and how large each may be."""
    disk = request.confinement.limits.disk_bytes
    folders: dict[str, int | None] = {WORKSPACE: disk, "/tmp": disk}  # noqa: S108 (the container's own)
    for mount in request.confinement.mounts:
        if isinstance(mount, HostMount):
            raise SandboxUnavailable(
                f"spec.volumeMounts: {mount.mount_path}: a Job has no folders of the operator's host; use a workspace,"
                " an emptyDir, a configMap or a secret"
            )
        if isinstance(mount, EmptyMount):
            folders[mount.mount_path] = mount.size_bytes or disk
    return folders


def _volumes(request: AttemptRequest, secrets: Secrets, launcher: Launcher) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "launch", "secret": {"secretName": launcher.name, "defaultMode": 0o555}},
    ]
    if secrets.files:
        volumes.append({"name": "private", "secret": {"secretName": job_name(request.id), "defaultMode": 0o444}})
    for number, size in enumerate(_empty_folders(request).values()):
        volumes.append({"name": f"empty-{number}", "emptyDir": {"sizeLimit": str(size)} if size else {}})
    for number, workspace in enumerate(claims(request)):
        volumes.append({"name": f"workspace-{number}", "persistentVolumeClaim": {"claimName": claim_name(workspace)}})
    for number, each in enumerate(fileparts.parts(request, job_name(request.id)).values()):
        volumes.append({"name": f"files-{number}", "projected": {"sources": [part.source for part in each]}})
    return volumes


def _mounts(request: AttemptRequest, secrets: Secrets) -> list[dict[str, Any]]:
    folders = {path: f"empty-{number}" for number, path in enumerate(_empty_folders(request))}
    mounts: list[dict[str, Any]] = [{"name": name, "mountPath": path} for path, name in folders.items()]
    numbers = {workspace: number for number, workspace in enumerate(claims(request))}
    for mount in request.confinement.mounts:
        if isinstance(mount, ClaimMount):
            below = {"subPath": mount.sub_path} if mount.sub_path else {}
            where = {"name": f"workspace-{numbers[mount.workspace]}", "mountPath": mount.mount_path}
            mounts.append({**where, **below, "readOnly": mount.read_only})
    files = {volume: number for number, volume in enumerate(fileparts.parts(request, job_name(request.id)))}
    for mount in request.confinement.mounts:
        if isinstance(mount, FilesMount):
            where = {"name": f"files-{files[mount.volume]}", "mountPath": mount.mount_path}
            mounts.append({**where, "subPath": fileparts.sub_path(mount), "readOnly": True})
    stdin = request.confinement.stdin_volume
    if isinstance(stdin, ClaimMount):
        where = {"name": f"workspace-{numbers[stdin.workspace]}", "mountPath": INPUT_PATH}
        mounts.append({**where, "readOnly": True})
    elif stdin is not None:
        where = {"name": f"files-{files[stdin.volume]}", "mountPath": INPUT_PATH}
        mounts.append({**where, "subPath": fileparts.CURRENT, "readOnly": True})
    mounts.append({"name": "launch", "mountPath": PATH, "subPath": KEY, "readOnly": True})
    for path, key in secrets.files.items():
        mounts.append({"name": "private", "mountPath": path, "subPath": key, "readOnly": True})
    # A mount inside another one must be mounted after it.
    return sorted(mounts, key=lambda mount: str(mount["mountPath"]).count("/"))
