"""The operations that an ExecutionTask can perform; a task has exactly one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from remit.api.base import ConfigMapKeySelector, EnvVar, Rule, SecretKeySelector, SpecModel, ValueSource, map_by
from remit.api.containers import ContainerAction, ContainerName, ContainerOptions, FolderInside, ImageReference
from remit.api.duration import Duration
from remit.api.quantity import Quantity

Argument = Annotated[str, Field(max_length=8192)]
Argv = Annotated[list[Argument], Field(min_length=1, max_length=256)]
Path = Annotated[str, Field(min_length=1, max_length=4096)]
AbsolutePath = Annotated[str, Field(min_length=2, max_length=4096, pattern=r"^/")]
FileMode = Annotated[str, Field(pattern=r"^0?[0-7]{3}$")]

FileAction = Literal[
    "create", "read", "write", "append", "copy", "move", "delete",
    "list", "stat", "chmod", "chown", "checksum", "mkdir",
]  # fmt: skip
HttpMethod = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class CommandOperation(SpecModel):
    """Runs one program. No shell is involved: nothing in the arguments is expanded or interpreted."""

    exactly_one = ("argv", "line")
    rules = (
        Rule(
            r"!has(self.line) || self.line.matches('(?s)^([^\\x22\\x27\\\\]|\\\\.|\\x27[^\\x27]*\\x27|"
            r"\\x22([^\\x22\\\\]|\\\\.)*\\x22)*$')",
            "a quote is not closed, or a backslash ends the line",
            ".line",
        ),
    )

    argv: Argv | None = None
    """The program and its arguments, one string each."""
    line: Annotated[str, Field(min_length=1, max_length=32768)] | None = None
    """The program and its arguments as one line. It is split and unquoted as by a POSIX shell, but no shell runs it."""


class ScriptOperation(SpecModel):
    """Runs a script with an interpreter that a policy allows."""

    interpreter: Annotated[str, Field(min_length=1, max_length=4096)]
    """Name or absolute path of the interpreter, such as `python3`."""
    source: Annotated[str, Field(min_length=1, max_length=262144)]
    """The source text of the script."""
    args: Annotated[list[Argument], Field(max_length=256)] = []
    """Arguments of the script."""


class ContentSource(SpecModel):
    """The source of a file's content. Exactly one of its fields is set."""

    exactly_one = ("secretKeyRef", "configMapKeyRef", "url")

    secret_key_ref: SecretKeySelector | None = None
    """One key of a Secret."""
    config_map_key_ref: ConfigMapKeySelector | None = None
    """One key of a ConfigMap."""
    url: Annotated[str, Field(pattern=r"^https?://", max_length=2048)] | None = None
    """An HTTP address to read. A policy's `http` rules must allow a GET of it, in addition to the `files` rules."""


class FileOperation(SpecModel):
    """Works on files below the directories that a policy allows. Links and concurrent changes cannot lead out of
    them."""

    rules = (
        Rule(
            "(self.operation in ['copy', 'move']) == has(self.destination)",
            "destination goes with copy and move, and they need it",
        ),
        Rule(
            "self.operation in ['create', 'write', 'append'] || (!has(self.content) && !has(self.contentFrom))",
            "content and contentFrom go with create, write and append",
        ),
        Rule("!has(self.content) || !has(self.contentFrom)", "set content or contentFrom, not both"),
        Rule(
            "!(self.operation in ['write', 'append']) || has(self.content) || has(self.contentFrom)",
            "write and append need content or contentFrom",
        ),
        Rule(
            "(self.operation == 'chmod') ? has(self.mode) :"
            " (!has(self.mode) || self.operation in ['create', 'write', 'mkdir'])",
            "chmod needs mode; otherwise mode goes with create, write and mkdir",
        ),
        Rule(
            "(self.operation == 'chown') == (has(self.owner) || has(self.group))",
            "owner and group go with chown, which needs one of them",
        ),
        Rule(
            "!self.recursive || self.operation in ['copy', 'delete', 'list', 'chmod', 'chown', 'mkdir']",
            "recursive goes with copy, delete, list, chmod, chown and mkdir",
        ),
        Rule("!has(self.glob) || self.operation in ['list', 'delete']", "glob goes with list and delete"),
        Rule("!has(self.glob) || !self.recursive", "recursive does not go with glob: '**/' in glob is every folder"),
        Rule(
            r"!has(self.glob) || !self.glob.matches('(^|/)\\.{0,2}(/|$)|[^/]\\*\\*|\\*\\*[^/]')",
            "write the glob below path, without '..', '.', '//' or a '/' at either end; '**' is a whole part of it",
            ".glob",
        ),
        Rule(
            "!has(self.olderThan) || self.operation == 'list' || (self.operation == 'delete' && has(self.glob))",
            "olderThan goes with list, and with delete that has a glob",
        ),
        Rule("!self.dryRun || self.operation == 'delete'", "dryRun goes with delete"),
        *(
            Rule(
                rf"!has(self.{field}) || !self.{field}.matches('/\\.{{0,2}}(/|$)')",
                "write the path without '..', '.', '//' or a final '/': it has one spelling, for policies to match",
                f".{field}",
            )
            for field in ("path", "destination")
        ),
    )

    operation: FileAction
    """The file operation to perform."""
    path: AbsolutePath
    """The absolute path to work on, without `..`."""
    destination: AbsolutePath | None = None
    """The absolute path to copy or move to, for copy and move."""
    content: Annotated[str, Field(max_length=262144)] | None = None
    """The literal content to write."""
    content_from: ContentSource | None = None
    """The source of the content to write, instead of `content`."""
    mode: FileMode | None = None
    """Permissions in octal, such as `0640`, for create, write, mkdir and chmod."""
    owner: Annotated[str, Field(max_length=64)] | None = None
    """User name or id, for chown."""
    group: Annotated[str, Field(max_length=64)] | None = None
    """Group name or id, for chown."""
    recursive: bool = False
    """Whether to include everything below `path`, for copy, delete, list, chmod, chown and mkdir."""
    glob: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Selects paths below the folder `path`, for list and delete, such as `*.log` or `**/*.tmp`: `*` and `?` stand for
    characters of one name, `**/` for any number of folders. `delete` does not remove folders. Links are not followed,
    and policies are checked for each path."""
    older_than: Duration | None = None
    """Selects only paths that were last modified longer ago than this, for list, and for delete with a glob: `90m`,
    `36h`, `7d` or `1d12h`."""
    dry_run: bool = False
    """Whether to remove nothing and only list what would be removed, for delete."""
    algorithm: Literal["sha256", "sha512", "blake2b"] = "sha256"
    """The digest algorithm, for checksum."""


class ProcessOperation(SpecModel):
    """Starts or manages a supervised long-running process, which continues after the end of the task."""

    rules = (
        Rule("self.action == 'list' || has(self.name)", "every action but list needs the process's name"),
        Rule("(self.action == 'start') == has(self.argv)", "argv goes with start, which needs it"),
        Rule("(self.action == 'signal') == has(self.signal)", "signal goes with the action signal, which needs it"),
        Rule("self.action == 'start' || self.restartPolicy == 'Never'", "restartPolicy goes with start"),
    )

    action: Literal["start", "stop", "signal", "status", "list", "usage"]
    """The action to perform."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] | None = None
    """The process's name, unique in its namespace; needed for all but list."""
    argv: Argv | None = None
    """The program and its arguments, for start."""
    signal: Annotated[str, Field(pattern=r"^SIG[A-Z0-9]+$", max_length=16)] | None = None
    """The signal to send, such as `SIGHUP`, for signal."""
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Never"
    """When to restart the process after it ended, for start."""


class HttpHeader(SpecModel):
    rules = (Rule("!(has(self.value) && has(self.valueFrom))", "set value or valueFrom, not both"),)

    name: Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=256)]
    """The header's name."""
    value: Annotated[str, Field(max_length=8192)] | None = None
    """The literal value."""
    value_from: ValueSource | None = None
    """The source of the value, instead of `value`."""


_CERTIFICATE_AND_KEY = Rule("has(self.certFrom) == has(self.keyFrom)", "certFrom and keyFrom go together")


class HttpOperation(SpecModel):
    """Makes one HTTP request. The same policies apply to redirects as to the first address."""

    rules = (_CERTIFICATE_AND_KEY,)

    url: Annotated[str, Field(pattern=r"^https?://", max_length=2048)]
    """The address, without a user, a fragment, dot segments or a backslash in any encoding."""
    method: HttpMethod = "GET"
    """The HTTP method."""
    headers: Annotated[list[HttpHeader], Field(max_length=64)] = []
    """Request headers. Headers that determine the destination or the length of the request, such as `Host` or
    `X-Original-URL`, are not allowed."""
    body: Annotated[str, Field(max_length=262144)] | None = None
    """The request's body."""
    expected_status: Annotated[list[Annotated[int, Field(ge=100, le=599)]], Field(max_length=64)] = []
    """Status codes that count as success. Empty: any from 200 to 299."""
    expected_body: Annotated[str, Field(max_length=1024)] | None = None
    """An RE2 pattern that must be found in the response's body."""
    follow_redirects: bool = True
    """Whether to follow redirects, at most ten. Policies are checked again for each redirect."""
    ca_from: ValueSource | None = None
    """The certificate authority to trust, as PEM, instead of the system's."""
    cert_from: ValueSource | None = None
    """The client certificate to present to the server, as PEM, followed by intermediate certificates."""
    key_from: ValueSource | None = None
    """The client certificate's private key, as PEM and unencrypted."""
    max_response_bytes: Quantity = "1Mi"
    """The largest response body that is accepted, at most 64Mi."""


class RedisOperation(SpecModel):
    """Runs commands on a Redis server, in one transaction."""

    rules = (_CERTIFICATE_AND_KEY,)

    connection: SecretKeySelector
    """The Secret that holds the server's URL."""
    commands: Annotated[
        list[Annotated[list[Annotated[str, Field(max_length=32768)]], Field(min_length=1, max_length=64)]],
        Field(min_length=1, max_length=64),
    ]
    """The commands, each as a list of words."""
    read_only: bool = False
    """Whether to refuse commands that write."""
    ca_from: ValueSource | None = None
    """The certificate authority to trust with `rediss://`, as PEM, instead of the system's."""
    cert_from: ValueSource | None = None
    """The client certificate to present to the server, as PEM, followed by intermediate certificates."""
    key_from: ValueSource | None = None
    """The client certificate's private key, as PEM and unencrypted."""


class SqlStatement(SpecModel):
    sql: Annotated[str, Field(min_length=1, max_length=32768)]
    """One statement; `$1`, `$2` … stand for parameters."""
    parameters: Annotated[list[Annotated[str, Field(max_length=32768)]], Field(max_length=64)] = []
    """Values of the parameters, as text. Cast a parameter in the statement if it has another type, as in `$1::int`."""


class PostgresOperation(SpecModel):
    """Runs statements on a PostgreSQL server, in one transaction or one by one. Rows are returned as JSON."""

    rules = (
        _CERTIFICATE_AND_KEY,
        Rule("!self.autocommit || !self.readOnly", "readOnly is about one transaction; set it or autocommit"),
    )

    connection: SecretKeySelector
    """The Secret that holds the server's URL."""
    statements: Annotated[list[SqlStatement], Field(min_length=1, max_length=64)]
    """The statements, in order."""
    read_only: bool = False
    """Whether the transaction is read-only, also on the server."""
    autocommit: bool = False
    """Whether to run each statement in a transaction of its own, which `VACUUM` and `CREATE INDEX CONCURRENTLY` need. A
    statement that fails does not undo the statements before it, and the task is not retried once the first statement
    was sent."""
    max_rows: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Maximum number of rows that are kept of one statement."""
    max_bytes: Quantity = "1Mi"
    """Maximum size of all rows that are kept, in bytes, at most 64Mi. A row of more than 8Mi is not read."""
    ca_from: ValueSource | None = None
    """The certificate authority to trust, as PEM, instead of the system's. If the URL has no `sslmode`, it is
    `verify-full`."""
    cert_from: ValueSource | None = None
    """The client certificate to present to the server, as PEM, followed by intermediate certificates."""
    key_from: ValueSource | None = None
    """The client certificate's private key, as PEM and unencrypted."""


class ContainerOperation(SpecModel):
    """Works on containers of a Docker engine: those that Remit created for the task's namespace, and others that a
    policy names."""

    rules = (
        Rule("self.action in ['run', 'pull', 'list'] || has(self.name)", "name the container"),
        Rule("!(self.action in ['pull', 'list']) || !has(self.name)", "name does not go with pull and list"),
        Rule("(self.action in ['run', 'pull']) == has(self.image)", "image goes with run and pull, which need it"),
        Rule("self.action != 'exec' || has(self.argv)", "exec needs argv"),
        Rule("self.action in ['run', 'exec'] || !has(self.argv)", "argv goes with run and exec"),
        Rule("self.action in ['run', 'exec'] || !has(self.env) || size(self.env) == 0", "env goes with run and exec"),
        Rule("self.action == 'exec' || !has(self.workingDir)", "workingDir goes with exec"),
        Rule("self.action == 'run' || !has(self.options)", "options go with run"),
        Rule("self.action == 'logs' || !has(self.tailLines)", "tailLines goes with logs"),
        Rule("self.action == 'run' || (!self.wait && !self.remove)", "wait and remove go with run"),
        Rule(
            "!self.remove || self.wait || self.action != 'run'",
            "remove needs wait: the container is removed when it has ended; set wait: true",
        ),
        Rule(
            "!self.wait || !has(self.options) || !has(self.options.restartPolicy)"
            " || self.options.restartPolicy == 'Never'",
            "options.restartPolicy does not go with wait: what is started again has no end to wait for; leave it out",
        ),
    )

    action: ContainerAction
    """The action to perform. `run` creates and starts a container that continues after the end of the task, unless
    `wait` is set."""
    name: ContainerName | None = None
    """The container's name on the engine, for all actions except pull and list. Not set: `run` generates a name."""
    image: ImageReference | None = None
    """The image, for run and pull. The engine must already have the image that `run` uses."""
    argv: Argv | None = None
    """The program and its arguments, for run and exec. For `run` they replace the image's entry point and command. A
    policy's `commands` must allow them."""
    env: Annotated[list[EnvVar], Field(max_length=128, json_schema_extra=map_by("name"))] = []
    """Environment variables, for run and exec. A policy's `environment.allow` must list each name, as for `spec.env`.
    """
    working_dir: FolderInside | None = None
    """The folder of the container that the program starts in, for exec: an absolute path that a policy's
    `containers.workingDirs` must match. Not set: the container's own working directory. The folder is not created: the
    attempt ends as StartFailed if it does not exist."""
    tail_lines: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Number of lines from the end of the log, for logs. Not set: all lines that the engine kept."""
    options: ContainerOptions | None = None
    """Options of the container beyond the safe defaults, for run. A policy must allow each option."""
    wait: bool = False
    """Whether to wait until the container has ended, for run. Its output and its exit code are then those of the task,
    and a timeout or a cancellation stops the container. An operator that restarts meanwhile continues to wait."""
    remove: bool = False
    """Whether to remove the container and its anonymous volumes when it has ended, successfully or not, for run with
    `wait`."""


Subject = (
    CommandOperation
    | ScriptOperation
    | FileOperation
    | ProcessOperation
    | HttpOperation
    | RedisOperation
    | PostgresOperation
    | ContainerOperation
)
"""The parameters of any operation."""
