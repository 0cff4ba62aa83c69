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
    """The same as one line, split into words the way a POSIX shell splits and unquotes them; no shell runs it."""


class ScriptOperation(SpecModel):
    """Runs a source text with an interpreter that a policy allows."""

    interpreter: Annotated[str, Field(min_length=1, max_length=4096)]
    """Name or absolute path of the interpreter, such as `python3`."""
    source: Annotated[str, Field(min_length=1, max_length=262144)]
    """The script."""
    args: Annotated[list[Argument], Field(max_length=256)] = []
    """Arguments after the script."""


class ContentSource(SpecModel):
    """Where a file's content comes from. Exactly one of its fields is set."""

    exactly_one = ("secretKeyRef", "configMapKeyRef", "url")

    secret_key_ref: SecretKeySelector | None = None
    """One key of a Secret."""
    config_map_key_ref: ConfigMapKeySelector | None = None
    """One key of a ConfigMap."""
    url: Annotated[str, Field(pattern=r"^https?://", max_length=2048)] | None = None
    """An HTTP address to read. The policy's `http` rules must allow a GET of it, besides its `files` rules."""


class FileOperation(SpecModel):
    """Works on files beneath the directories that a policy allows; no link or race leads out of them."""

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
    """What to do."""
    path: AbsolutePath
    """The absolute path to work on, without `..`."""
    destination: AbsolutePath | None = None
    """Where to, for copy and move."""
    content: Annotated[str, Field(max_length=262144)] | None = None
    """The content to write, as it is."""
    content_from: ContentSource | None = None
    """Where the content to write comes from, instead of `content`."""
    mode: FileMode | None = None
    """Permissions in octal, such as `0640`, for create, write, mkdir and chmod."""
    owner: Annotated[str, Field(max_length=64)] | None = None
    """User name or id, for chown."""
    group: Annotated[str, Field(max_length=64)] | None = None
    """Group name or id, for chown."""
    recursive: bool = False
    """Include everything below, for copy, delete, list, chmod, chown and mkdir."""
    glob: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """What is meant below the folder `path`, for list and delete, such as `*.log` or `**/*.tmp`: `*` and `?` stand for
    characters of one name, `**/` for any number of folders. `delete` removes what is no folder. Links are not followed,
    and a policy is asked about each path."""
    older_than: Duration | None = None
    """Only what was last modified longer ago, for list, and for delete with a glob: `90m`, `36h`, `7d` or `1d12h`."""
    dry_run: bool = False
    """Remove nothing, and list what would be removed, for delete."""
    algorithm: Literal["sha256", "sha512", "blake2b"] = "sha256"
    """The digest, for checksum."""


class ProcessOperation(SpecModel):
    """Starts or looks after a supervised long-running process, which outlives the task."""

    rules = (
        Rule("self.action == 'list' || has(self.name)", "every action but list needs the process's name"),
        Rule("(self.action == 'start') == has(self.argv)", "argv goes with start, which needs it"),
        Rule("(self.action == 'signal') == has(self.signal)", "signal goes with the action signal, which needs it"),
        Rule("self.action == 'start' || self.restartPolicy == 'Never'", "restartPolicy goes with start"),
    )

    action: Literal["start", "stop", "signal", "status", "list", "usage"]
    """What to do."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] | None = None
    """The process's name, unique in its namespace; needed for all but list."""
    argv: Argv | None = None
    """The program and its arguments, for start."""
    signal: Annotated[str, Field(pattern=r"^SIG[A-Z0-9]+$", max_length=16)] | None = None
    """The signal to send, such as `SIGHUP`, for signal."""
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Never"
    """When to start it again after it ends, for start."""


class HttpHeader(SpecModel):
    rules = (Rule("!(has(self.value) && has(self.valueFrom))", "set value or valueFrom, not both"),)

    name: Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=256)]
    """The header's name."""
    value: Annotated[str, Field(max_length=8192)] | None = None
    """The value as it is."""
    value_from: ValueSource | None = None
    """Where the value comes from, instead of `value`."""


_CERTIFICATE_AND_KEY = Rule("has(self.certFrom) == has(self.keyFrom)", "certFrom and keyFrom go together")


class HttpOperation(SpecModel):
    """Makes one HTTP request. Redirects are held to the same policy as the first address."""

    rules = (_CERTIFICATE_AND_KEY,)

    url: Annotated[str, Field(pattern=r"^https?://", max_length=2048)]
    """The address, without a user, a fragment, dot segments or a backslash in any encoding."""
    method: HttpMethod = "GET"
    """The method."""
    headers: Annotated[list[HttpHeader], Field(max_length=64)] = []
    """Request headers, except those that say where the request goes or ends, such as `Host` or `X-Original-URL`."""
    body: Annotated[str, Field(max_length=262144)] | None = None
    """The request's body."""
    expected_status: Annotated[list[Annotated[int, Field(ge=100, le=599)]], Field(max_length=64)] = []
    """Status codes that count as success; by default any from 200 to 299."""
    expected_body: Annotated[str, Field(max_length=1024)] | None = None
    """An RE2 pattern that must be found in the response's body."""
    follow_redirects: bool = True
    """Follow redirects, at most ten, each checked against policy again."""
    ca_from: ValueSource | None = None
    """The certificate authority to trust, as PEM, instead of the system's."""
    cert_from: ValueSource | None = None
    """The client certificate to show the server, as PEM, with those of authorities in between."""
    key_from: ValueSource | None = None
    """The client certificate's private key, as PEM and unencrypted."""
    max_response_bytes: Quantity = "1Mi"
    """The largest response body that is accepted, at most 64Mi."""


class RedisOperation(SpecModel):
    """Runs commands on a Redis server in one transaction."""

    rules = (_CERTIFICATE_AND_KEY,)

    connection: SecretKeySelector
    """The Secret that holds the server's URL."""
    commands: Annotated[
        list[Annotated[list[Annotated[str, Field(max_length=32768)]], Field(min_length=1, max_length=64)]],
        Field(min_length=1, max_length=64),
    ]
    """The commands, each as a list of words."""
    read_only: bool = False
    """Refuse commands that write."""
    ca_from: ValueSource | None = None
    """The certificate authority to trust with `rediss://`, as PEM, instead of the system's."""
    cert_from: ValueSource | None = None
    """The client certificate to show the server, as PEM, with those of authorities in between."""
    key_from: ValueSource | None = None
    """The client certificate's private key, as PEM and unencrypted."""


class SqlStatement(SpecModel):
    sql: Annotated[str, Field(min_length=1, max_length=32768)]
    """One statement; `$1`, `$2` … stand for parameters."""
    parameters: Annotated[list[Annotated[str, Field(max_length=32768)]], Field(max_length=64)] = []
    """The parameters' values as text; cast in the statement where another type is meant, as in `$1::int`."""


class PostgresOperation(SpecModel):
    """Runs statements on a PostgreSQL server in one transaction, or one by one; rows come back as JSON."""

    rules = (
        _CERTIFICATE_AND_KEY,
        Rule("!self.autocommit || !self.readOnly", "readOnly is about one transaction; set it or autocommit"),
    )

    connection: SecretKeySelector
    """The Secret that holds the server's URL."""
    statements: Annotated[list[SqlStatement], Field(min_length=1, max_length=64)]
    """The statements, in order."""
    read_only: bool = False
    """Make the transaction read-only, on the server too."""
    autocommit: bool = False
    """Run each statement by itself instead of all in one transaction, as `VACUUM` and `CREATE INDEX CONCURRENTLY` need
    it. A statement that fails does not undo those before it, and nothing is retried once the first was sent."""
    max_rows: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """The most rows that are kept of one statement."""
    max_bytes: Quantity = "1Mi"
    """The most bytes that are kept of all rows, at most 64Mi. A row of more than 8Mi is not read at all."""
    ca_from: ValueSource | None = None
    """The certificate authority to trust, as PEM, instead of the system's. Without `sslmode` in the URL, that is
    `verify-full`."""
    cert_from: ValueSource | None = None
    """The client certificate to show the server, as PEM, with those of authorities in between."""
    key_from: ValueSource | None = None
    """The client certificate's private key, as PEM and unencrypted."""


class ContainerOperation(SpecModel):
    """Works on containers of a Docker engine: those that Remit made in the same namespace, or others that a policy
    names."""

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
    """What to do. `run` creates and starts a container that goes on after the task has ended, unless `wait` is set."""
    name: ContainerName | None = None
    """The container's name on the engine, for all but pull and list. `run` makes one up if there is none."""
    image: ImageReference | None = None
    """The image, for run and pull. `run` takes one that the engine has."""
    argv: Argv | None = None
    """The program and its arguments, for run and exec; in `run` they take the place of the image's entry point and
    command. A policy's `commands` must allow them."""
    env: Annotated[list[EnvVar], Field(max_length=128, json_schema_extra=map_by("name"))] = []
    """Environment variables, for run and exec. A policy's `environment.allow` must list each name, as for `spec.env`.
    """
    working_dir: FolderInside | None = None
    """The folder of the container that the program starts in, for exec: an absolute path, which a policy's
    `containers.workingDirs` must match. Not set: the container's own. Nothing is made: the attempt ends as StartFailed
    where the folder is not there."""
    tail_lines: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many lines of the end, for logs. Not set: all that the engine kept."""
    options: ContainerOptions | None = None
    """What the container gets beyond the safe defaults, for run; a policy must allow each."""
    wait: bool = False
    """Wait until the container has ended, for run: its output and its exit code are the task's, and a timeout or a
    cancel stops it. An operator that is restarted meanwhile goes on waiting."""
    remove: bool = False
    """Remove the container and its anonymous volumes when it has ended, however it did, for run with `wait`."""


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
"""Any operation, as the task has it."""
