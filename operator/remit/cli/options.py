"""Options that several commands share, each written once."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from remit.cli import completion

if TYPE_CHECKING:
    from remit.execution.artifacts.s3.location import S3Location


class TableForm(StrEnum):
    TABLE = "table"
    JSON = "json"


SERVER = "API server"
_SERVICE = "Operator"
DEFAULT_LEASE_NAME = "remit-operator"
DEFAULT_DOCKER_HOST = "unix:///var/run/docker.sock"


def _namespace(given: str | None) -> str | None:
    """The namespace as kubectl takes it: an empty one means the context's. Raises typer's usage error."""
    if given and not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", given):
        raise typer.BadParameter(f"{given!r} is not the name of a namespace: small letters, digits and '-', at most 63")
    return given or None


MOST_NAMESPACES = 16


def namespaces(given: list[str] | None) -> list[str]:
    """Several, each once. Raises typer's usage error."""
    named = list(dict.fromkeys(filter(None, map(_namespace, given or ()))))
    if len(named) > MOST_NAMESPACES:
        raise typer.BadParameter(f"{len(named)} are too many; name {MOST_NAMESPACES} at most, or none for all")
    return named


def _lease_name(given: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?", given):
        raise typer.BadParameter(f"{given!r} is not the name of a Lease: small letters, digits, '-' and '.'")
    return given


def number(least: int, most: int | None = None) -> Callable[[str | int], int]:
    """A parser of whole numbers from `least` to `most`. It raises typer's usage error for anything else."""
    wanted = f"of {least} or more" if most is None else f"from {least} to {most}"

    def parse(given: str | int) -> int:
        text = str(given)  # the default is passed as a number
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or int(text) < least or (most is not None and int(text) > most):
            raise typer.BadParameter(f"{text!r} is not a whole number {wanted}")
        return int(text)

    return parse


def state_dir_option(help: str) -> Any:
    """A folder with the state of an operator."""
    return typer.Option(metavar="FOLDER", help=help, envvar="REMIT_STATE_DIR", file_okay=False, show_default=False)


def port_option(help: str) -> Any:
    """A port to listen at. `help` says what is chosen without one."""
    return typer.Option(parser=number(0, 65535), metavar="N", help=help, show_default=False)


Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Kubeconfig to use instead of $KUBECONFIG or ~/.kube/config.",
        dir_okay=False,
        rich_help_panel=SERVER,
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Context of the kubeconfig.",
        rich_help_panel=SERVER,
        autocompletion=completion.contexts,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        help="Namespace; by default the context's.",
        rich_help_panel=SERVER,
        autocompletion=completion.namespaces,
        callback=_namespace,
    ),
]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")]
Selector = Annotated[
    str, typer.Option("--selector", "-l", metavar="LABELS", help="Those with these labels, such as team=data.")
]
Output = Annotated[TableForm, typer.Option("--output", "-o", metavar="FORM", help="table or json.")]
TaskName = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the ExecutionTask.", autocompletion=completion.tasks)
]
StateDir = Annotated[
    Path | None,
    state_dir_option("Where the operator keeps its state: /var/lib/remit for root, else ~/.local/state/remit."),
]
OperatorNamespace = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Namespace whose policies are the ceiling for all others.",
        envvar="REMIT_OPERATOR_NAMESPACE",
        rich_help_panel=_SERVICE,
    ),
]
LeaseName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="The Lease, in the operator's own namespace.",
        envvar="REMIT_LEASE_NAME",
        show_envvar=False,
        rich_help_panel="Lease",
        callback=_lease_name,
    ),
]
MaxConcurrent = Annotated[
    int,
    typer.Option(
        parser=number(1),
        metavar="N",
        help="Attempts running at once.",
        envvar="REMIT_MAX_CONCURRENT",
        rich_help_panel=_SERVICE,
    ),
]
MaxArtifacts = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="How much all artifacts together may have; the oldest go first.",
        envvar="REMIT_MAX_ARTIFACTS",
        rich_help_panel=_SERVICE,
    ),
]
_STORE = "Artifacts in object storage"
ArtifactStore = Annotated[
    str,
    typer.Option(
        metavar="s3://BUCKET/PREFIX",
        help="Keep artifacts there, for one operator and its replicas, and not in the state directory.",
        envvar="REMIT_ARTIFACT_STORE",
        show_envvar=False,
        show_default=False,
        rich_help_panel=_STORE,
    ),
]
S3Endpoint = Annotated[
    str,
    typer.Option(
        "--s3-endpoint",
        metavar="URL",
        help="The address of the store, if it is not Amazon's, such as https://minio.example:9000.",
        envvar="REMIT_S3_ENDPOINT",
        show_envvar=False,
        show_default=False,
        rich_help_panel=_STORE,
    ),
]
S3Region = Annotated[
    str,
    typer.Option(
        "--s3-region",
        metavar="NAME",
        help="The region of the bucket; by default AWS_REGION, or us-east-1.",
        envvar="REMIT_S3_REGION",
        show_envvar=False,
        show_default=False,
        rich_help_panel=_STORE,
    ),
]
S3CaFile = Annotated[
    Path | None,
    typer.Option(
        "--s3-ca-file",
        metavar="FILE",
        help="Authorities that are trusted beside the system's, in PEM.",
        envvar="REMIT_S3_CA_FILE",
        show_envvar=False,
        show_default=False,
        dir_okay=False,
        rich_help_panel=_STORE,
    ),
]
S3Credentials = Annotated[
    Path | None,
    typer.Option(
        "--s3-credentials",
        metavar="FOLDER",
        help="With the files access-key-id, secret-access-key and perhaps session-token; by default what the AWS_ "
        "variables, a web identity or the machine's role give.",
        envvar="REMIT_S3_CREDENTIALS",
        show_envvar=False,
        show_default=False,
        file_okay=False,
        rich_help_panel=_STORE,
    ),
]
_RETENTION = "Retention"
OutputMaxAge = Annotated[
    str,
    typer.Option(
        metavar="AGE",
        help="How long the output of what has ended is kept, such as 30d; off: until its task is deleted.",
        envvar="REMIT_OUTPUT_MAX_AGE",
        show_envvar=False,
        rich_help_panel=_RETENTION,
    ),
]
MaxOutput = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="How much of it is kept together; the oldest goes first. off: all.",
        envvar="REMIT_MAX_OUTPUT",
        show_envvar=False,
        rich_help_panel=_RETENTION,
    ),
]
ArtifactsMaxAge = Annotated[
    str,
    typer.Option(
        metavar="AGE",
        help="How long artifacts are kept; off: until their task is deleted.",
        envvar="REMIT_ARTIFACTS_MAX_AGE",
        show_envvar=False,
        rich_help_panel=_RETENTION,
    ),
]
AuditMaxAge = Annotated[
    str,
    typer.Option(
        metavar="AGE",
        help="How long closed files of the audit trail are kept; off: for ever.",
        envvar="REMIT_AUDIT_MAX_AGE",
        show_envvar=False,
        rich_help_panel=_RETENTION,
    ),
]
MaxAudit = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="How much of the audit trail is kept; the oldest closed file goes first. off: all.",
        envvar="REMIT_MAX_AUDIT",
        show_envvar=False,
        rich_help_panel=_RETENTION,
    ),
]
FinishedTaskTtl = Annotated[
    str,
    typer.Option(
        "--finished-task-ttl",
        metavar="AGE",
        help="When finished tasks with generated names are deleted, where their spec does not say; off: never.",
        envvar="REMIT_FINISHED_TASK_TTL",
        show_envvar=False,
        rich_help_panel=_RETENTION,
    ),
]
FINISHED_TASK_TTL = "7d"
NoAnomalies = Annotated[
    bool,
    typer.Option(
        "--no-anomalies",
        help="Tell of no runs that differ much from those before them; see docs/anomalies.md.",
        envvar="REMIT_NO_ANOMALIES",
        show_envvar=False,
        rich_help_panel=_SERVICE,
    ),
]
OUTPUT_MAX_AGE, MAX_OUTPUT, ARTIFACTS_MAX_AGE, AUDIT_MAX_AGE, MAX_AUDIT = "30d", "10Gi", "90d", "off", "10Gi"
ReadOnlyPaths = Annotated[
    list[Path] | None,
    typer.Option(
        "--read-only-path",
        metavar="FOLDER",
        help="A further directory of this host that sandboxes may read, for programs outside /usr. Repeatable.",
        envvar="REMIT_READ_ONLY_PATHS",
        rich_help_panel=_SERVICE,
    ),
]
DockerHost = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="The Docker engine for containers, as unix://PATH; off: none. Policies allow nothing of it by default.",
        envvar="REMIT_DOCKER_HOST",
        rich_help_panel=_SERVICE,
    ),
]
Notifications = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Who is told when something goes wrong; see docs/notifications.md and remit notify.",
        envvar="REMIT_NOTIFICATIONS",
        dir_okay=False,
        show_default=False,
        show_envvar=False,
        rich_help_panel=_SERVICE,
    ),
]
MetricsAddress = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        help="Where /metrics, /healthz and /readyz are served; port 0 picks one.",
        envvar="REMIT_METRICS_ADDRESS",
        rich_help_panel=_SERVICE,
    ),
]
MetricsTokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file with the bearer token that /metrics asks for; without it, /metrics is open.",
        envvar="REMIT_METRICS_TOKEN_FILE",
        show_default=False,
        rich_help_panel=_SERVICE,
    ),
]
LogFormat = Annotated[
    Literal["auto", "json", "console"],
    typer.Option(
        metavar="FORM",
        help="The form of the log: json, console, or auto, which is console on a terminal.",
        envvar="REMIT_LOG_FORMAT",
    ),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"],
    typer.Option(
        metavar="LEVEL",
        help="The least that is logged: debug, info, warning, error or critical.",
        envvar="REMIT_LOG_LEVEL",
    ),
]

LogFilePath = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        metavar="FILE",
        help="Log to this file instead of standard error, as JSON unless --log-format says otherwise.",
        envvar="REMIT_LOG_FILE",
        dir_okay=False,
        show_default=False,
    ),
]
LogMaxSize = Annotated[
    str,
    typer.Option(metavar="SIZE", help="Of the log file, before it is rotated.", envvar="REMIT_LOG_MAX_SIZE"),
]
LogBackups = Annotated[
    int,
    typer.Option(parser=number(1), metavar="N", help="Rotated log files that are kept.", envvar="REMIT_LOG_BACKUPS"),
]
LOG_MAX_SIZE, LOG_BACKUPS = "100Mi", 5


def log_file(path: Path | None, max_size: str, backups: int) -> Any:
    """The open file, if there is to be one. Raises `InvalidInput`, and typer's usage error."""
    from remit.telemetry.logfile import LogFile

    if path is None:
        return None
    file = LogFile(path.absolute(), size(max_size, "--log-max-size"), backups)
    file.reopen_on_hangup()
    return file


def size(text: str, flag: str) -> int:
    """Bytes of such as `10Gi`. Raises typer's usage error."""
    from remit.api.quantity import parse_bytes
    from remit.errors import InvalidInput

    try:
        return parse_bytes(text)
    except (InvalidInput, ValueError):
        raise typer.BadParameter(f"{flag}: {text[:64]!r} is not a size such as 512Mi or 10Gi") from None


def size_or_off(text: str, flag: str) -> int | None:
    """`size`, or None for `off`. Raises typer's usage error."""
    try:
        return None if text == "off" else size(text, flag)
    except typer.BadParameter as error:
        raise typer.BadParameter(f"{error.message}, nor off") from None


def age_or_off(text: str, flag: str) -> float | None:
    """Seconds of such as `30d`, or None for `off`. Raises typer's usage error."""
    if text == "off":
        return None
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    if found is None:
        raise typer.BadParameter(f"{flag}: {text!r} is neither a time such as 30d, 12h or 2w, nor off")
    return float(int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}[found[2]])


def ttl_or_off(text: str) -> int | None:
    """Whole seconds, or None for `off`. Raises typer's usage error."""
    age = age_or_off(text, "--finished-task-ttl")
    return None if age is None else int(age)


def retention(output_max_age: str, max_output: str, artifacts_max_age: str, audit_max_age: str, max_audit: str) -> Any:
    """The fields of the operator's settings of these flags. Raises typer's usage error."""
    return {
        "output_age_seconds": age_or_off(output_max_age, "--output-max-age"),
        "output_bytes": size_or_off(max_output, "--max-output"),
        "artifact_age_seconds": age_or_off(artifacts_max_age, "--artifacts-max-age"),
        "audit_age_seconds": age_or_off(audit_max_age, "--audit-max-age"),
        "audit_bytes": size_or_off(max_audit, "--max-audit"),
    }


def artifact_store(
    url: str, endpoint: str, region: str, ca_file: Path | None, credentials: Path | None
) -> S3Location | None:
    """The object store that these flags name. Raises typer's usage error, and `InvalidInput`."""
    from remit.execution.artifacts.s3.location import location

    if url:
        return location(url, endpoint, region, ca_file, credentials)
    if endpoint or region or ca_file or credentials:
        raise typer.BadParameter("the flags --s3-… need --artifact-store s3://BUCKET/PREFIX")
    return None


def pairs(words: list[str] | None, flag: str) -> dict[str, str]:
    """`KEY=VALUE` words as a dict. Raises typer's usage error."""
    split = [word.partition("=") for word in words or []]
    for (key, equals, _), word in zip(split, words or [], strict=True):
        if not key or not equals:
            raise typer.BadParameter(f"{flag} wants KEY=VALUE, not {word!r}")
    return {key: value for key, _, value in split}


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `:PORT` or `[IPV6]:PORT`. Raises typer's usage error."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter(f"{address!r} is not HOST:PORT, such as 127.0.0.1:9090")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 (the user left the host out)


def page_address(address: str) -> tuple[str, int | None] | None:
    """Host and port of the page; port None: the usual one. None: no page. Raises typer's usage error."""
    if address == "off":
        return None
    host, port = split_address(address) if address else ("127.0.0.1", None)
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise typer.BadParameter(
            f"--page-address {address}: the page has no TLS, so it is served on this machine alone, at 127.0.0.1 or"
            " [::1]; see it from elsewhere through ssh -L"
        )
    return host, port
