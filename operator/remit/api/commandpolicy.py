"""CommandPolicy: what may run, where, how much, how often. The only thing that can say yes."""

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
"""The namespace's own name."""
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
    """An RE2 pattern that the whole command must match, arguments quoted as a POSIX shell would need them."""
    executable: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """The program: a bare name is looked up in the operator's fixed PATH; an absolute path is meant as it is."""
    args: Annotated[list[Annotated[str, Field(max_length=2048)]], Field(max_length=64)] | None = None
    """An RE2 pattern for each argument, each of which must match whole; a last `…` (or `...`) lets any further
    arguments follow. Not set: any arguments; empty: none."""
    reason: Annotated[str, Field(max_length=512)] = ""
    """Why, for people; shown when the rule decides."""


class Commands(SpecModel):
    """Rules for commands. A command runs if an `allow` rule matches and no `deny` rule does."""

    allow: Annotated[list[CommandRule], Field(max_length=128)] = []
    """What may run."""
    deny: Annotated[list[CommandRule], Field(max_length=128)] = []
    """What may not, whatever else allows it."""


class Scripts(SpecModel):
    """Rules for scripts: the interpreter must be listed, and the source's digest or text must match."""

    interpreters: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=32)] = []
    """Interpreters by name or absolute path."""
    sha256: Annotated[list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]], Field(max_length=256)] = []
    """SHA-256 digests of sources that may run."""
    patterns: Annotated[list[Pattern], Field(max_length=64)] = []
    """RE2 patterns, one of which the whole source must match."""


class Environment(SpecModel):
    """Rules for environment variables. A variable can make a program load or run something else, as `LD_PRELOAD` and
    `GIT_SSH_COMMAND` do, so a task may set only what is listed here, wherever it takes the value from. `LANG`,
    `LANGUAGE`, `LC_ALL` and the other categories of C, `TZ`, `TERM`, `NO_COLOR`, `COLUMNS` and `LINES` need no entry
    while their value is a plain word such as `C.UTF-8` or `Europe/Paris`."""

    allow: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?]+$", max_length=256)]], Field(max_length=128)
    ] = []
    """Names that tasks may set, such as `PGPASSWORD`, in the case of letters that they have: `*` stands for any
    characters, `?` for one. A pattern allows every name that matches it: prefer whole names."""


class PrivateFiles(SpecModel):
    """Rules for private files. Those below `/run/private` need no entry, because no program looks there by itself.
    Elsewhere a file can make a program load or run something else, as `/workspace/.gitconfig` does, and must be
    allowed."""

    allow: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=64)] = []
    """Paths at which tasks may put files; `*` stands for any characters, `/` included."""


class HostPathRule(SpecModel):
    paths: Annotated[list[FileGlob], Field(min_length=1, max_length=64)]
    """Globs over absolute paths of the operator's host that may be mounted: `*` and `?` stay within one folder, `**`
    spans them, `/a/**/b` is `/a/b`, too, and `/a/**` is `/a`. With `/a/**` links may lead from one folder below `/a` to
    another; with any other glob the path may have no link in it, but for those of root."""
    access: Annotated[
        list[Access], Field(min_length=1, max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ["ReadOnly"]
    """What programs may do there. `ReadWrite` alone does not allow `ReadOnly`."""
    run_as_user: Annotated[int, Field(ge=1, le=4_294_967_294)] | None = None
    """The uid of the host that a task with such a mount runs as, where the operator is root. Not set: the owner of what
    is mounted; a folder of root's can then only be read, as far as anybody may read it."""


class WorkspaceRule(SpecModel):
    names: Annotated[list[Annotated[str, Field(min_length=1, max_length=63)]], Field(min_length=1, max_length=64)]
    """Names of workspaces; `*` stands for any characters, `?` for one."""
    max_size: Quantity = "1Gi"
    """The most that one may have. It is also what a task gets that asks for no size."""


class ArtifactRule(SpecModel):
    max_bytes: Quantity = "100Mi"
    """The most that one artifact may have."""
    max_retain_seconds: Annotated[int, Field(ge=0, le=315_360_000)] = 0
    """How long artifacts may be kept after their task was deleted, in seconds."""


class VolumeRules(SpecModel):
    """Rules for volumes and artifacts. An `emptyDir` falls under `limits.disk`; a ConfigMap or a Secret needs no entry
    below `/run/private`, and elsewhere one for its `mountPath` in `privateFiles`."""

    host_paths: Annotated[list[HostPathRule], Field(max_length=64)] = []
    """Paths of the host."""
    workspaces: Annotated[list[WorkspaceRule], Field(max_length=64)] = []
    """Workspaces."""
    artifacts: ArtifactRule | None = None
    """Artifacts: whether tasks may leave some, and mount those of others. Not set: neither."""
    releases: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=64)] = []
    """Names of Deployments of the namespace whose released artifacts may be mounted, to be read; `*` stands for any
    characters, `?` for one."""


class OutputRules(SpecModel):
    """Rules for what is kept of the output."""

    allow_raw: bool = False
    """Whether tasks may have their output kept byte for byte, secrets included (`spec.output.raw` of a task)."""


class Images(SpecModel):
    """Rules for container images."""

    allow: Annotated[list[Glob], Field(max_length=128)] = []
    """Globs over whole image references, such as `registry.example/*@sha256:*`. The registry is matched as a host: a
    leading `*.` stands for one label or more, `*/` for any registry, and a glob that names none is about images that
    name none."""


class FileRule(SpecModel):
    paths: Annotated[list[FileGlob], Field(min_length=1, max_length=64)]
    """Globs over absolute paths: `*` and `?` stay within one directory, `**` spans them, and `/a/**/b` is `/a/b`, too.
    What comes before the first wildcard is the directory that no link leads out of."""
    operations: Annotated[list[FileAction], Field(min_length=1, max_length=16)]
    """The file operations that are meant, such as `read`. `copy` and `move` are asked of both paths."""
    owners: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=16)] = []
    """Users, by name or number, whose files these may be; empty: anyone's. Looked at before anything is done."""


class Files(SpecModel):
    """Rules for file operations."""

    allow: Annotated[list[FileRule], Field(max_length=64)] = []
    """What may be done where."""
    deny: Annotated[list[FileRule], Field(max_length=64)] = []
    """What may not, whatever else allows it."""


class HttpRule(SpecModel):
    hosts: Annotated[list[HostName], Field(min_length=1, max_length=64)]
    """Host names or addresses. A leading `*.` stands for one label or more, so `*.example.com` is not `example.com`;
    `*` alone stands for any host."""
    methods: Annotated[list[HttpMethod], Field(min_length=1, max_length=16)] = ["GET", "HEAD"]
    """Methods."""
    ports: Annotated[list[Port], Field(min_length=1, max_length=64)] = [443]
    """Ports."""
    paths: Annotated[list[Annotated[str, Field(max_length=1024, pattern="^/")]], Field(max_length=64)] = []
    """Globs over the canonical path, without the query: `*` stays within one segment, `**` spans them, and `/a/**/b`
    is `/a/b`, too. What servers read differently, such as `%2F`, `//` and `;`, is matched only where the glob contains
    it. Empty: any path."""
    addresses: Annotated[list[Cidr], Field(max_length=64)] = []
    """Networks, such as `10.1.0.0/16`, that these hosts may lead to though they are loopback, private, link-local or
    otherwise not public. A cloud's metadata address must be listed by itself, as `169.254.169.254/32`."""


class Http(SpecModel):
    """Rules for HTTP requests."""

    allow: Annotated[list[HttpRule], Field(max_length=64)] = []
    """What may be requested."""


class PostgresRule(SpecModel):
    secrets: Annotated[list[Name], Field(max_length=64)] = []
    """Secrets with connections that may be used."""
    statements: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=64)] = []
    """Kinds of statements that may run, such as `select`."""
    functions: Annotated[
        list[
            Annotated[str, Field(pattern=r"^[A-Za-z_*][A-Za-z0-9_$*]*(\.[A-Za-z_*][A-Za-z0-9_$*]*)?$", max_length=127)]
        ],
        Field(max_length=64),
    ] = []
    """Functions that may be called, besides those of PostgreSQL's own that only compute and read, such as `lower` and
    `count`. `nextval` and what users of the database have created need an entry: a name, which
    is meant in any schema, or `schema.name`; `*` stands for any characters of either."""


class RedisRule(SpecModel):
    secrets: Annotated[list[Name], Field(max_length=64)] = []
    """Secrets with connections that may be used."""
    commands: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=256)] = []
    """Commands that may run, such as `GET`."""


class Databases(SpecModel):
    """Rules for databases."""

    postgres: PostgresRule | None = None
    """PostgreSQL."""
    redis: RedisRule | None = None
    """Redis."""


class Containers(SpecModel):
    """Rules for container operations. The images of `run` and `pull` must match `images`, and what `run` and `exec`
    execute falls under `commands` too."""

    operations: Annotated[
        list[ContainerAction], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """The actions that are meant, such as `logs`."""
    options: Annotated[
        list[ContainerOption], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """Options that `run` may be given. `privileged`, `capabilities`, `devices` and the `host…` ones give away the
    host."""
    mounts: Annotated[list[FileGlob], Field(max_length=64)] = []
    """Globs over paths of the engine's host that `run` may mount: `*` and `?` stay within one directory, `**` spans
    them, and `/a/**/b` is `/a/b`, too. The engine follows links on its host: list only what nobody untrusted can write
    to."""
    working_dirs: Annotated[list[FolderGlob], Field(max_length=64)] = []
    """Globs over folders of a container that `exec` may start a program in, as in `mounts`. Empty: none but the
    container's own, which needs no entry. The path is judged as the task has it; links within the container lead on."""
    others: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over names of containers that are not of Remit's making in the task's namespace, and that `operations` may
    be done to all the same; `*` is any. Empty: none."""


class Processes(SpecModel):
    """Rules for supervised processes. What they run falls under `commands` too."""

    operations: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=16)] = []
    """The actions that are meant, such as `start`."""


class Releases(SpecModel):
    """Rules for what Deployments run, beyond those for the same done by a task: a process falls under `commands` and
    `files`, a container or a pod under `images`, `commands` and `containers.operations`, which must have `run`."""

    engines: Annotated[list[Glob], Field(max_length=64)] = []
    """Addresses of Docker engines that may be released to, such as `ssh://deploy@10.0.0.0/24`. The host is a name, an
    address, a range, `*.` with a domain, or `*`; `*` in the user stands for any characters, and as the port for any
    port. In the path of `unix://`, `*` stays within one directory, and `**` spans them. `*` alone is any engine. The
    operator's own (`--docker-host`) needs no entry."""
    namespaces: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over namespaces that may be released to from another one. The Deployment's own needs no entry."""
    service_accounts: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over names of ServiceAccounts that pods may run as. Without a name they have no token, and need no
    entry."""


class Pods(SpecModel):
    """Rules for the pods of Jobs. What is not listed no task may ask for."""

    node_selectors: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over labels of nodes that may be selected, as `key=value`."""
    tolerations: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over taints that may be tolerated, as `key=value:effect`, without `=value` for any value, without `:effect`
    for every effect, and with `*` as the key for every taint."""
    runtime_classes: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over names of RuntimeClasses."""
    priority_classes: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over names of PriorityClasses."""
    service_accounts: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over names of ServiceAccounts. Whoever may run as one may do all that it may."""
    pull_secrets: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs over names of Secrets with which images are pulled."""


class CountLimit(SpecModel):
    rules = (Rule("!has(self.default) || !has(self.max) || self.default <= self.max", "default must not be above max"),)

    default: Annotated[int, Field(ge=0)] | None = None
    """For tasks that say nothing."""
    max: Annotated[int, Field(ge=0)] | None = None
    """The most that a task may ask for."""


class QuantityLimit(SpecModel):
    default: Quantity | None = None
    """For tasks that say nothing."""
    max: Quantity | None = None
    """The most that a task may ask for."""


class PolicyLimits(SpecModel):
    """How much. What a task does not set gets the default; asking for more than the maximum is denied."""

    timeout_seconds: CountLimit | None = None
    """Seconds of one attempt."""
    deadline_seconds: CountLimit | None = None
    """Seconds of the whole task."""
    retries: CountLimit | None = None
    """Retries; only the maximum counts."""
    memory: QuantityLimit | None = None
    """Memory."""
    cpu: QuantityLimit | None = None
    """Processor, in cores."""
    pids: CountLimit | None = None
    """Processes and threads."""
    disk: QuantityLimit | None = None
    """Private disk."""
    open_files: CountLimit | None = None
    """Open files of one process."""
    file_size: QuantityLimit | None = None
    """The largest file."""
    disk_bytes_per_second: QuantityLimit | None = None
    """Disk bandwidth."""
    network_bytes_per_second: QuantityLimit | None = None
    """Network bandwidth."""
    output_bytes: QuantityLimit | None = None
    """Output kept of each stream; only the maximum counts."""
    termination_grace_period_seconds: CountLimit | None = None
    """Seconds from TERM to KILL; only the maximum counts, and a longer time is cut to it."""


class SandboxRule(SpecModel):
    require: Annotated[list[LayerName], Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"})] = []
    """Confinement layers without which the task is refused."""


class Rate(SpecModel):
    """How often, and how many at once. What comes faster waits in the queue."""

    rules = (Rule("!has(self.burst) || has(self.perMinute)", "burst goes with perMinute"),)

    per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Starts a minute, in the long run, in each namespace."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Starts at once after a quiet time, in each namespace. Not set: as many as `perMinute`."""
    max_concurrent: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Tasks running at once, in all namespaces together."""


class CommandPolicySpec(SpecModel):
    """What the selected tasks may do. Whatever is not allowed is denied."""

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
    """The tasks that it speaks for, by label; empty: all tasks of its namespace. Policies in the operator's own
    namespace speak for every namespace, as a ceiling."""
    namespace_selector: LabelSelector = LabelSelector.model_construct()
    """For a ceiling, the namespaces that it speaks for, by the label `kubernetes.io/metadata.name`, which every
    namespace has and nobody can change; empty: all. Whoever creates a task chooses its labels, but not its
    namespace."""
    enforcement: Literal["Enforce", "Audit"] = "Enforce"
    """Whether a denial stops the task, or is only recorded."""
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
    """Where commands, scripts and file operations that are Jobs may run. Not set: on the installation's default backend
    only, which is `kubernetes` on a cluster and `process` elsewhere, unless the operator was started with another."""
    networks: Annotated[
        list[Network], Field(min_length=1, max_length=3, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ["none"]
    """What tasks may see of the network: `none`, `restricted` (what `egress` lists) or `host` (all of it)."""
    egress: Egress = Egress.model_construct()
    """Rules for the connections of tasks with `network: restricted`."""
    environment: Environment = Environment.model_construct()
    """Rules for environment variables."""
    private_files: PrivateFiles = PrivateFiles.model_construct()
    """Rules for private files."""
    volumes: VolumeRules = VolumeRules.model_construct()
    """Rules for volumes and artifacts."""
    output: OutputRules = OutputRules.model_construct()
    """Rules for what is kept of the output."""
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
    """Rules for where Deployments are released to."""
    limits: PolicyLimits = PolicyLimits.model_construct()
    """How much."""
    sandbox: SandboxRule = SandboxRule.model_construct()
    """The confinement that is required."""
    rate: Rate = Rate.model_construct()
    """How often."""


class DenialStatus(StatusModel):
    """A denial."""

    task: str
    """The task that was denied."""
    reason: str
    """Why."""
    time: Time
    """When."""


class CommandPolicyStatus(StatusModel):
    """Whether the policy is in force, and what it did."""

    observed_generation: int = -1
    """The `metadata.generation` that this status speaks of."""
    conditions: Conditions = []
    """Ready: True when it is in force; False when a pattern in it is wrong, and then it allows nothing."""
    matched_tasks: int = 0
    """How many tasks it selects now."""
    allowed: int = 0
    """How many tasks it allowed."""
    denied: int = 0
    """How many tasks it denied."""
    last_denied: DenialStatus | None = None
    """The latest denial."""

    @property
    def ready(self) -> Condition | None:
        """None: no operator has looked at it yet."""
        return next((condition for condition in self.conditions if condition.type == "Ready"), None)


class CommandPolicy(CustomResource):
    """What the tasks that it selects may run, where, how much and how often. Nothing runs without one."""

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
