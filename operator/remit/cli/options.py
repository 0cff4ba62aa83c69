"""Options that several commands share, each written once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from remit.cli import completion

_SERVER = "API server"
_SERVICE = "Operator"
DEFAULT_LEASE_NAME = "remit-operator"
DEFAULT_DOCKER_HOST = "unix:///var/run/docker.sock"


def _namespace(given: str | None) -> str | None:
    """As kubectl takes it, for which an empty one is the context's. Raises typer's usage error."""
    if given and not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", given):
        raise typer.BadParameter(f"{given!r} is not the name of a namespace: small letters, digits and '-', at most 63")
    return given or None


def _lease_name(given: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?", given):
        raise typer.BadParameter(f"{given!r} is not the name of a Lease: small letters, digits, '-' and '.'")
    return given


def number(least: int, most: int | None = None) -> Callable[[str | int], int]:
    """A parser of whole numbers from `least` to `most`. It raises typer's usage error for anything else."""
    wanted = f"of {least} or more" if most is None else f"from {least} to {most}"

    def parse(given: str | int) -> int:
        text = str(given)  # a default is a number already
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or int(text) < least or (most is not None and int(text) > most):
            raise typer.BadParameter(f"{text!r} is not a whole number {wanted}")
        return int(text)

    return parse


Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Kubeconfig to use instead of $KUBECONFIG or ~/.kube/config.",
        dir_okay=False,
        rich_help_panel=_SERVER,
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Context of the kubeconfig.",
        rich_help_panel=_SERVER,
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
        rich_help_panel=_SERVER,
        autocompletion=completion.namespaces,
        callback=_namespace,
    ),
]
TaskName = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the ExecutionTask.", autocompletion=completion.tasks)
]
StateDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where the operator keeps its state: /var/lib/remit for root, else ~/.local/state/remit.",
        envvar="REMIT_STATE_DIR",
        file_okay=False,
        show_default=False,
    ),
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
        metavar="unix://PATH|off",
        help="The Docker engine for containers. Policies allow none of it unless they say so.",
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


def size(text: str, flag: str) -> int:
    """Bytes of such as `10Gi`. Raises typer's usage error."""
    from remit.api import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(f"{flag}: {error}") from None


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
