"""CommandPolicy: what tasks may run, where, with which limits and how often. Only a policy can allow an operation."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from remit.api.base import Condition, Conditions, LabelSelector, Name, Rule, SpecModel, StatusModel, Time
from remit.api.containers import ContainerAction, ContainerOption
from remit.api.egress import Cidr, Egress, HostName, Port
from remit.api.executiontask import BackendName, Network
from remit.api.operations import FileAction, HttpMethod
from remit.api.quantity import Quantity
from remit.api.resource import CustomResource
from remit.api.volumes import Access

NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
"""The label with the namespace's name, which the API server sets on every namespace."""
LayerName = Literal["namespaces", "seccomp", "landlock", "cgroup", "rlimits"]
Pattern = Annotated[str, Field(min_length=1, max_length=2048)]
Glob = Annotated[str, Field(min_length=1, max_length=1024)]
FileGlob = Annotated[str, Field(min_length=2, max_length=1024, pattern="^/")]
FolderGlob = Annotated[str, Field(min_length=1, max_length=1024, pattern="^/")]


class CommandRule(SpecModel):
    """Matches a command. Exactly one of `pattern` and `executable` is set."""

    exactly_one = ("pattern", "executable")
    rules = (Rule("!has(self.args) || has(self.executable)", "args goes with executable"),)

    pattern: Pattern | None = None
    """An RE2 pattern that the whole command must match, with its arguments quoted for a POSIX shell."""
    executable: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """The program. A name without `/` is looked up in the operator's fixed PATH; an absolute path is matched as it
    is."""
    args: Annotated[list[Annotated[str, Field(max_length=2048)]], Field(max_length=64)] | None = None
    """One RE2 pattern for each argument; it must match the whole argument. A final `…` (or `...`) allows any further
    arguments. Not set: any arguments are allowed; empty: no arguments are allowed."""
    reason: Annotated[str, Field(max_length=512)] = ""
    """The reason for the rule, for people. It is shown when the rule decides."""


class Commands(SpecModel):
    """Rules for commands. A command may run if an `allow` rule matches it and no `deny` rule does."""

    allow: Annotated[list[CommandRule], Field(max_length=128)] = []
    """Commands that may run."""
    deny: Annotated[list[CommandRule], Field(max_length=128)] = []
    """Commands that may not run, even if another rule allows them."""


class Scripts(SpecModel):
    """Rules for scripts: the interpreter must be listed, and the source's digest or text must match."""

    interpreters: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=32)] = []
    """Interpreters by name or absolute path."""
    sha256: Annotated[list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]], Field(max_length=256)] = []
    """SHA-256 digests of sources that may run."""
    patterns: Annotated[list[Pattern], Field(max_length=64)] = []
    """RE2 patterns. The whole source must match one of them, unless `sha256` lists its digest."""


class Environment(SpecModel):
    """Rules for environment variables. A variable can make a program load or run something else, as `LD_PRELOAD` and
    `GIT_SSH_COMMAND` do, so a task may set only what is listed here, wherever it takes the value from. `LANG`,
    `LANGUAGE`, `LC_ALL` and the other categories of C, `TZ`, `TERM`, `NO_COLOR`, `COLUMNS` and `LINES` need no entry
    while their value is a plain word such as `C.UTF-8` or `Europe/Paris`."""

    allow: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?]+$", max_length=256)]], Field(max_length=128)
    ] = []
    """Names of variables that tasks may set, such as `PGPASSWORD`. Matching is case-sensitive; `*` stands for any
    characters, `?` for one. A pattern allows every name that matches it, so prefer complete names."""


class PrivateFiles(SpecModel):
    """Rules for private files. Files below `/run/private` need no entry, because no program reads that directory unless
    it is told to. A file elsewhere can make a program load or run something else, as `/workspace/.gitconfig` does, so
    it must be allowed."""

    allow: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=64)] = []
    """Paths at which tasks may place files; `*` stands for any characters, including `/`."""


class HostPathRule(SpecModel):
    paths: Annotated[list[FileGlob], Field(min_length=1, max_length=64)]
    """Globs over absolute paths of the operator's host that may be mounted: `*` and `?` match within one folder, `**`
    matches across folders, `/a/**/b` also matches `/a/b`, and `/a/**` also matches `/a`. With `/a/**`, links may lead
    from one folder below `/a` to another; with any other glob, the path must not contain links, except links that root
    owns."""
    access: Annotated[
        list[Access], Field(min_length=1, max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ["ReadOnly"]
    """The access that a mount may have. `ReadWrite` alone does not allow `ReadOnly`."""
    run_as_user: Annotated[int, Field(ge=1, le=4_294_967_294)] | None = None
    """The host's uid that a task with such a mount runs as, if the operator runs as root. Not set: the uid of the owner
    of the mounted path; a path that root owns can then only be read, and only as far as its permissions let every user
    read it."""


class WorkspaceRule(SpecModel):
    names: Annotated[list[Annotated[str, Field(min_length=1, max_length=63)]], Field(min_length=1, max_length=64)]
    """Names of workspaces; `*` stands for any characters, `?` for one."""
    max_size: Quantity = "1Gi"
    """The maximum size of one workspace. It is also the size that a task gets if it does not ask for one."""


class ArtifactRule(SpecModel):
    max_bytes: Quantity = "100Mi"
    """The maximum size of one artifact."""
    max_retain_seconds: Annotated[int, Field(ge=0, le=315_360_000)] = 0
    """The maximum time for which artifacts may be kept after their task was deleted, in seconds."""


class VolumeRules(SpecModel):
    """Rules for volumes and artifacts. `limits.disk` limits an `emptyDir`. A ConfigMap or a Secret that is mounted
    below `/run/private` needs no entry; mounted elsewhere, it needs an entry for its `mountPath` in `privateFiles`."""

    host_paths: Annotated[list[HostPathRule], Field(max_length=64)] = []
    """Paths of the host that tasks may mount."""
    workspaces: Annotated[list[WorkspaceRule], Field(max_length=64)] = []
    """Workspaces that tasks may use."""
    artifacts: ArtifactRule | None = None
    """Allows tasks to leave artifacts and to mount artifacts of other tasks. Not set: both are denied."""
    releases: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=64)] = []
    """Names of Deployments of the task's namespace whose released artifacts may be mounted read-only; `*` stands for
    any characters, `?` for one."""


class OutputRules(SpecModel):
    """Rules for how output is kept."""

    allow_raw: bool = False
    """Whether a task may have its output kept byte for byte, including secrets (`spec.output.raw` of the task)."""


class Images(SpecModel):
    """Rules for container images."""

    allow: Annotated[list[Glob], Field(max_length=128)] = []
    """Globs over whole image references, such as `registry.example/*@sha256:*`. The registry is matched as a host: a
    leading `*.` stands for one or more labels, and `*/` for any registry. A glob without a registry matches only
    references without a registry."""


class FileRule(SpecModel):
    paths: Annotated[list[FileGlob], Field(min_length=1, max_length=64)]
    """Globs over absolute paths: `*` and `?` match within one directory, `**` matches across directories, and `/a/**/b`
    also matches `/a/b`. The part before the first wildcard is the root of the operation: links that lead out of it are
    not followed."""
    operations: Annotated[list[FileAction], Field(min_length=1, max_length=16)]
    """The file operations that the rule is about, such as `read`. For `copy` and `move`, both paths are checked."""
    owners: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=16)] = []
    """Users, by name or number, who may own the files; empty: any user. The owner is checked before the operation."""


class Files(SpecModel):
    """Rules for file operations."""

    allow: Annotated[list[FileRule], Field(max_length=64)] = []
    """File operations that are allowed, by path."""
    deny: Annotated[list[FileRule], Field(max_length=64)] = []
    """File operations that are denied, even if another rule allows them."""


class HttpRule(SpecModel):
    hosts: Annotated[list[HostName], Field(min_length=1, max_length=64)]
    """Host names or addresses. A leading `*.` stands for one or more labels, so `*.example.com` does not match
    `example.com`; `*` alone stands for any host."""
    methods: Annotated[list[HttpMethod], Field(min_length=1, max_length=16)] = ["GET", "HEAD"]
    """HTTP methods that may be used."""
    ports: Annotated[list[Port], Field(min_length=1, max_length=64)] = [443]
    """TCP ports that may be used."""
    paths: Annotated[list[Annotated[str, Field(max_length=1024, pattern="^/")]], Field(max_length=64)] = []
    """Globs over the canonical path, without the query: `*` matches within one segment, `**` matches across segments,
    and `/a/**/b` also matches `/a/b`. Parts that servers interpret differently, such as `%2F`, `//` and `;`, match only
    if the glob contains them. Empty: any path."""
    addresses: Annotated[list[Cidr], Field(max_length=64)] = []
    """Networks, such as `10.1.0.0/16`, that these hosts may resolve to although the addresses are loopback, private,
    link-local or otherwise not public. A cloud's metadata address needs an entry of its own: `169.254.169.254/32`."""


class Http(SpecModel):
    """Rules for HTTP requests."""

    allow: Annotated[list[HttpRule], Field(max_length=64)] = []
    """Requests that are allowed."""


class PostgresRule(SpecModel):
    secrets: Annotated[list[Name], Field(max_length=64)] = []
    """Secrets with the connection URLs that may be used."""
    statements: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=64)] = []
    """Kinds of statements that may run, such as `select`."""
    functions: Annotated[
        list[
            Annotated[str, Field(pattern=r"^[A-Za-z_*][A-Za-z0-9_$*]*(\.[A-Za-z_*][A-Za-z0-9_$*]*)?$", max_length=127)]
        ],
        Field(max_length=64),
    ] = []
    """Functions that may be called, in addition to PostgreSQL's built-in functions that only compute and read, such as
    `lower` and `count`. `nextval` and user-defined functions need an entry: a name, which matches in any schema, or
    `schema.name`; `*` stands for any characters of either part."""


class RedisRule(SpecModel):
    secrets: Annotated[list[Name], Field(max_length=64)] = []
    """Secrets with the connection URLs that may be used."""
    commands: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=256)] = []
    """Commands that may run, such as `GET`."""


class Databases(SpecModel):
    """Rules for databases."""

    postgres: PostgresRule | None = None
    """Rules for PostgreSQL."""
    redis: RedisRule | None = None
    """Rules for Redis."""


class Containers(SpecModel):
    """Rules for container operations. In addition, `images` must allow the images of `run` and `pull`, and `commands`
    must allow what `run` and `exec` execute."""

    operations: Annotated[
        list[ContainerAction], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """The actions that are allowed, such as `logs`."""
    options: Annotated[
        list[ContainerOption], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """Options that `run` may use. `privileged`, `capabilities`, `devices` and the `host…` options give the container
    control over the host."""
    mounts: Annotated[list[FileGlob], Field(max_length=64)] = []
    """Globs over paths of the engine's host that `run` may mount: `*` and `?` match within one directory, `**` matches
    across directories, and `/a/**/b` also matches `/a/b`. The engine follows links on its host, so list only paths that
    untrusted users cannot write to."""
    working_dirs: Annotated[list[FolderGlob], Field(max_length=64)] = []
    """Globs, with the syntax of `mounts`, over folders of a container that `exec` may start a program in. The
    container's own working directory needs no entry. Empty: only that one. The path is matched as the task gives it;
    links inside the container are still followed."""
    others: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over names of containers that Remit did not create for the task's namespace and to which `operations` may
    be applied nevertheless; `*` matches any name. Empty: none."""


class Processes(SpecModel):
    """Rules for supervised processes. In addition, `commands` must allow what they run."""

    operations: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=16)] = []
    """The actions that are allowed, such as `start`."""


class Releases(SpecModel):
    """Rules for Deployments, in addition to the rules that a task with the same operation needs: `commands` and `files`
    must allow a process; `images`, `commands` and `containers.operations` with `run` must allow a container or a
    pod."""

    engines: Annotated[list[Glob], Field(max_length=64)] = []
    """Addresses of Docker engines that may be released to, such as `ssh://deploy@10.0.0.0/24`. The host is a name, an
    address, a range, `*.` with a domain, or `*`; `*` in the user stands for any characters, and `*` as the port for any
    port. In the path of `unix://`, `*` matches within one directory and `**` across directories. `*` alone matches any
    engine. The operator's own engine (`--docker-host`) needs no entry."""
    namespaces: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over namespaces that a Deployment of another namespace may release to. A Deployment's own namespace needs
    no entry."""
    service_accounts: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over names of ServiceAccounts that pods may run as. A pod without a ServiceAccount name has no token and
    needs no entry."""


class Pods(SpecModel):
    """Rules for the pods of Jobs. A task may use only values that are listed."""

    node_selectors: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over node labels that may be selected, as `key=value`."""
    tolerations: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over taints that may be tolerated, as `key=value:effect`. Without `=value` the toleration is for any value,
    without `:effect` for every effect, and with `*` as the key for every taint."""
    runtime_classes: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over names of RuntimeClasses."""
    priority_classes: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over names of PriorityClasses."""
    service_accounts: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over names of ServiceAccounts. A task that runs as a ServiceAccount has all its permissions."""
    pull_secrets: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over names of Secrets that may be used to pull images."""


class CountLimit(SpecModel):
    rules = (Rule("!has(self.default) || !has(self.max) || self.default <= self.max", "default must not be above max"),)

    default: Annotated[int, Field(ge=0)] | None = None
    """The value for tasks that do not set one."""
    max: Annotated[int, Field(ge=0)] | None = None
    """The highest value that a task may ask for."""


class QuantityLimit(SpecModel):
    default: Quantity | None = None
    """The value for tasks that do not set one."""
    max: Quantity | None = None
    """The highest value that a task may ask for."""


class PolicyLimits(SpecModel):
    """Limits of tasks. A task that does not set a value gets the default; a task that asks for more than the maximum is
    denied."""

    timeout_seconds: CountLimit | None = None
    """Duration of one attempt, in seconds."""
    deadline_seconds: CountLimit | None = None
    """Duration of the whole task, in seconds."""
    retries: CountLimit | None = None
    """Number of retries. Only the maximum is used."""
    memory: QuantityLimit | None = None
    """Memory, in bytes."""
    cpu: QuantityLimit | None = None
    """Processor time, in cores."""
    pids: CountLimit | None = None
    """Number of processes and threads."""
    disk: QuantityLimit | None = None
    """Size of the private disk, in bytes."""
    open_files: CountLimit | None = None
    """Number of open files of one process."""
    file_size: QuantityLimit | None = None
    """Size of the largest file, in bytes."""
    disk_bytes_per_second: QuantityLimit | None = None
    """Disk bandwidth, in bytes per second."""
    network_bytes_per_second: QuantityLimit | None = None
    """Network bandwidth, in bytes per second."""
    output_bytes: QuantityLimit | None = None
    """Output that is kept of each stream, in bytes. Only the maximum is used."""
    termination_grace_period_seconds: CountLimit | None = None
    """Time between SIGTERM and SIGKILL, in seconds. Only the maximum is used; a longer time is reduced to it."""


class SandboxRule(SpecModel):
    require: Annotated[list[LayerName], Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"})] = []
    """Confinement layers that must be in force; a task that cannot have them is refused."""


class Rate(SpecModel):
    """Limits on how often tasks start and on how many run at once. Tasks above a limit wait in the queue."""

    rules = (Rule("!has(self.burst) || has(self.perMinute)", "burst goes with perMinute"),)

    per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Sustained number of starts per minute, in each namespace."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Number of tasks that may start at once after a time without starts, in each namespace. Not set: `perMinute`."""
    max_concurrent: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Number of tasks that may run at once, in all namespaces together."""


class CommandPolicySpec(SpecModel):
    """What the selected tasks may do. Everything that no rule allows is denied."""

    rules = (
        Rule(
            "!has(self.egress) || !has(self.egress.allow) || size(self.egress.allow) == 0"
            " || 'restricted' in self.networks",
            "egress is about tasks with network: restricted; add restricted to networks",
            ".egress.allow",
        ),
        Rule(
            "!has(self.namespaceSelector) || ((!has(self.namespaceSelector.matchLabels)"
            f" || self.namespaceSelector.matchLabels.all(key, key == '{NAMESPACE_LABEL}'))"
            " && (!has(self.namespaceSelector.matchExpressions)"
            f" || self.namespaceSelector.matchExpressions.all(each, each.key == '{NAMESPACE_LABEL}')))",
            f"other labels of namespaces are not read; select by {NAMESPACE_LABEL}",
            ".namespaceSelector",
        ),
    )

    selector: LabelSelector = LabelSelector.model_construct()
    """The tasks that the policy applies to, by label; empty: all tasks of its namespace. Policies in the operator's own
    namespace apply to every namespace, as a ceiling."""
    namespace_selector: LabelSelector = LabelSelector.model_construct()
    """For a ceiling, the namespaces that it applies to, by the label `kubernetes.io/metadata.name`, which every
    namespace has and no user can change; empty: all. The creator of a task can choose its labels, but not the name of
    its namespace."""
    enforcement: Literal["Enforce", "Audit"] = "Enforce"
    """Whether a denial stops the task (`Enforce`) or is only recorded (`Audit`)."""
    commands: Commands = Commands.model_construct()
    """Rules for commands."""
    scripts: Scripts = Scripts.model_construct()
    """Rules for scripts."""
    backends: (
        Annotated[
            list[BackendName], Field(min_length=1, max_length=3, json_schema_extra={"x-kubernetes-list-type": "set"})
        ]
        | None
    ) = None
    """Backends on which commands, scripts and file operations that are Jobs may run. Not set: only the installation's
    default backend, which is `kubernetes` on a cluster and `process` elsewhere, unless the operator was started with
    another one."""
    networks: Annotated[
        list[Network], Field(min_length=1, max_length=3, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ["none"]
    """Network access that tasks may have: `none`, `restricted` (the hosts that `egress` lists) or `host` (the host's
    whole network)."""
    egress: Egress = Egress.model_construct()
    """Rules for the connections of tasks with `network: restricted`."""
    environment: Environment = Environment.model_construct()
    """Rules for environment variables."""
    private_files: PrivateFiles = PrivateFiles.model_construct()
    """Rules for private files."""
    volumes: VolumeRules = VolumeRules.model_construct()
    """Rules for volumes and artifacts."""
    output: OutputRules = OutputRules.model_construct()
    """Rules for how output is kept."""
    images: Images = Images.model_construct()
    """Rules for container images."""
    pods: Pods = Pods.model_construct()
    """Rules for the pods of Jobs."""
    files: Files = Files.model_construct()
    """Rules for file operations."""
    processes: Processes = Processes.model_construct()
    """Rules for supervised processes."""
    http: Http = Http.model_construct()
    """Rules for HTTP requests."""
    databases: Databases = Databases.model_construct()
    """Rules for databases."""
    containers: Containers = Containers.model_construct()
    """Rules for container operations."""
    releases: Releases = Releases.model_construct()
    """Rules for where Deployments may release to."""
    limits: PolicyLimits = PolicyLimits.model_construct()
    """Limits of resources, time and output."""
    sandbox: SandboxRule = SandboxRule.model_construct()
    """The confinement that is required."""
    rate: Rate = Rate.model_construct()
    """Limits on how often tasks start and on how many run at once."""


class DenialStatus(StatusModel):
    """One denial of a task."""

    task: str
    """The task that was denied."""
    reason: str
    """Why the task was denied."""
    time: Time
    """When the task was denied."""


class CommandPolicyStatus(StatusModel):
    """Whether the policy is in force, and how many tasks it decided on."""

    observed_generation: int = -1
    """The `metadata.generation` that this status describes."""
    conditions: Conditions = []
    """Ready is True when the policy is in force. It is False when a pattern in the policy is wrong; the policy then
    allows nothing."""
    matched_tasks: int = 0
    """Number of tasks that the policy selects now."""
    allowed: int = 0
    """Number of tasks that the policy allowed."""
    denied: int = 0
    """Number of tasks that the policy denied."""
    last_denied: DenialStatus | None = None
    """The latest denial."""

    @property
    def ready(self) -> Condition | None:
        """The condition `Ready`. None if no operator has processed the policy yet."""
        return next((condition for condition in self.conditions if condition.type == "Ready"), None)


class CommandPolicy(CustomResource):
    """What the selected tasks may run, where, with which limits and how often. No task runs without a policy that
    allows it."""

    kind: Literal["CommandPolicy"] = "CommandPolicy"
    spec: CommandPolicySpec = CommandPolicySpec.model_construct()
    status: CommandPolicyStatus = CommandPolicyStatus.model_construct()


PRINTER_COLUMNS: list[dict[str, Any]] = [
    {"name": "Enforcement", "type": "string", "jsonPath": ".spec.enforcement"},
    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"},
    {"name": "Tasks", "type": "integer", "jsonPath": ".status.matchedTasks"},
    {"name": "Allowed", "type": "integer", "jsonPath": ".status.allowed"},
    {"name": "Denied", "type": "integer", "jsonPath": ".status.denied"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].message", "priority": 1},
]
