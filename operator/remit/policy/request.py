"""A request to policy: one operation, with everything that a rule may look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from remit.api.base import EnvVar
from remit.api.executiontask import BackendName, ExecutionTask, ExecutionTaskSpec, Network
from remit.api.operationnames import Operation
from remit.api.operations import CommandOperation, ProcessOperation, Subject
from remit.api.pods import PodOptions
from remit.api.volumes import Artifact, Volume, VolumeFile, VolumeMount
from remit.policy.argv import split_line
from remit.policy.environment import needing_permission
from remit.policy.limits import Limits, asked_for
from remit.policy.match import Command
from remit.sandboxpaths import WORKSPACE

SCRIPT_PATH: Final = "/run/remit/script"
"""The path of the script in the sandbox."""


BY_BACKENDS: Final = frozenset({"command", "script"})
"""The operations that a backend runs; the rest Remit performs itself, files also in a Job."""
OPERATOR: Final = "operator"
"""Said for the backend of what Remit performs itself."""
WITH_IMAGES: Final = frozenset({"docker", "kubernetes"})
"""The backends that run images."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """The backend on which an operator runs what names none, and the image, if that backend runs images."""

    backend: BackendName = "process"
    image: str = ""
    for_images: BackendName | None = None
    """The backend of tasks that name an image, if `backend` runs none; None if there is none."""
    remit_image: str = ""
    """An image with Remit itself, of which file operations run as Jobs; empty: they do not."""

    def placed(self, task: ExecutionTask) -> tuple[str, str | None]:
        """The backend and the image of `task`: as its spec says, or the backend as was chosen when it was first looked
        at, and the image as when the attempt that runs was started, whatever this installation says by now."""
        spec, status = task.spec, task.status
        if spec.operation == "file" and self._has_job_for_files(task):
            return "kubernetes", self.remit_image or None
        if spec.operation not in BY_BACKENDS:
            return OPERATOR, spec.image
        backend = spec.backend or status.backend or self.backend
        if not (spec.backend or status.backend) and spec.image and self.backend not in WITH_IMAGES:
            backend = self.for_images or self.backend
        runs = bool(status.attempts) and status.attempts[-1].finished_at is None
        chosen = status.image if runs or (status.phase and status.phase.final) else ""
        image = spec.image or (chosen or self.image if backend in WITH_IMAGES else None)
        return backend, image or None

    def _has_job_for_files(self, task: ExecutionTask) -> bool:
        chosen = task.spec.backend or task.status.backend
        return chosen == "kubernetes" if chosen else bool(self.remit_image) and self.backend == "kubernetes"

    def is_own(self, image: str, operation: Operation) -> bool:
        """Whether it chose the image for such an operation, which policies need not allow then."""
        return bool(image) and image == (self.remit_image if operation == "file" else self.image)


@dataclass(frozen=True, kw_only=True)
class ReleasePlace:
    """The place in which a release runs its instances, if it is not the operator's own."""

    engine: str = ""
    """Address of a Docker engine other than this host's own."""
    namespace: str = ""
    """Another namespace than the Deployment's."""
    service_account: str = ""
    """The ServiceAccount of pods."""


@dataclass(frozen=True, kw_only=True)
class PolicyRequest:
    """One operation that wants to run in `namespace`."""

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    operation: Operation = "command"
    command: Command | None = None
    """What would be executed, for operations that execute something."""
    subject: Subject | None = None
    """The operation as the task has it; while it runs, as far as it turned out to be another (a redirect, a link)."""
    foreign: bool = False
    """Whether it turned out to be about something that Remit did not make in this namespace."""
    backend: str = "process"
    installation: Installation = Installation()
    network: Network = "none"
    environment: frozenset[str] = frozenset()
    """Names of the environment variables that are set for it and that a policy has to list."""
    private_files: frozenset[str] = frozenset()
    """Paths of the private files that are put there for it."""
    volumes: tuple[Volume, ...] = ()
    mounts: tuple[VolumeMount, ...] = ()
    """The mounts of the volumes, by the volume's name."""
    stdin_file: VolumeFile | None = None
    """The file of a volume that is read as standard input."""
    kept_paths: Mapping[str, str] = field(default_factory=dict)
    """The paths of artifacts and results, as they are written, by their field of the spec."""
    artifacts: tuple[Artifact, ...] = ()
    working_dir: str = WORKSPACE
    """The working directory of its program."""
    raw_output: bool = False
    """Whether its output is kept with the secrets in it."""
    image: str | None = None
    pod: PodOptions | None = None
    """What the pod of a Job is to have."""
    place: ReleasePlace = ReleasePlace()
    limits: Limits = field(default_factory=Limits)
    """What is asked for; what is not set gets a default."""

    @property
    def beside_the_operator(self) -> bool:
        """Whether what it executes is a program of the operator's own host, and not of an image."""
        return self.backend not in WITH_IMAGES and self.operation != "container"

    @property
    def on_a_backend(self) -> bool:
        """Whether a backend runs it, and not the operator itself."""
        return self.operation in BY_BACKENDS or self.backend in WITH_IMAGES

    @property
    def starts_program(self) -> bool:
        """Whether a program is started for it in a sandbox of its own."""
        starts_process = isinstance(self.subject, ProcessOperation) and self.subject.action == "start"
        return self.operation in {"command", "script"} or starts_process


def argv_of(command: CommandOperation) -> list[str]:
    """The exact argument list. Raises `InvalidInput` when `line` cannot be split."""
    return list(command.argv) if command.argv is not None else split_line(command.line or "")


def executed(spec: ExecutionTaskSpec) -> list[str]:
    """The exact argument list of what is executed; empty for an operation that executes nothing.

    Raises `InvalidInput` when a command's `line` cannot be split.
    """
    if spec.command is not None:
        return argv_of(spec.command)
    if spec.script is not None:
        return [spec.script.interpreter, SCRIPT_PATH, *spec.script.args]
    if spec.process is not None:
        return list(spec.process.argv or ())
    if spec.container is not None:
        return list(spec.container.argv or ())
    return []


_UNREAD: Final[Mapping[str, str | None]] = MappingProxyType({})
_ANYWHERE: Final = Installation()


def request_for(
    task: ExecutionTask,
    command: Command | None,
    environment: Mapping[str, str | None] = _UNREAD,
    installation: Installation = _ANYWHERE,
) -> PolicyRequest:
    """The request that a task makes of `installation`. `command` is what it executes (`executed`) with the program
    looked up; `environment` has the variables that `env` and `envFrom` come to, once they are read."""
    spec = task.spec
    backend, image = installation.placed(task)
    if not spec.image:  # the installation's own image was used when the attempt was started
        installation = replace(installation, image=image or "")
    inside = spec.container.env if spec.container else []
    return PolicyRequest(
        namespace=task.metadata.namespace,
        labels=task.metadata.labels,
        operation=spec.operation,
        command=command,
        subject=spec.subject,
        backend=backend,
        installation=installation,
        network=spec.network,
        environment=needing_permission({**_written(spec.env), **environment}) | needing_permission(_written(inside)),
        private_files=frozenset(file.path for file in spec.private_files) | _mounted_configuration(spec),
        volumes=tuple(spec.volumes),
        mounts=tuple(spec.volume_mounts),
        stdin_file=spec.stdin_from.volume if spec.stdin_from else None,
        artifacts=tuple(spec.artifacts),
        kept_paths={
            **{f"artifacts[{index}].path": artifact.path for index, artifact in enumerate(spec.artifacts)},
            **{f"results[{index}].path": result.path for index, result in enumerate(spec.results)},
        },
        working_dir=spec.working_dir,
        raw_output=spec.output.raw,
        image=image,
        pod=spec.pod,
        limits=asked_for(spec),
    )


def _mounted_configuration(spec: ExecutionTaskSpec) -> frozenset[str]:
    """The paths at which ConfigMaps and Secrets are mounted. A program may look for its configuration there as in
    private files."""
    kept = {volume.name for volume in spec.volumes if volume.config_map or volume.secret}
    return frozenset(mount.mount_path for mount in spec.volume_mounts if mount.name in kept)


def _written(variables: Sequence[EnvVar]) -> dict[str, str | None]:
    """The value of each variable that says its own."""
    return {variable.name: None if variable.value_from else variable.value or "" for variable in variables}
