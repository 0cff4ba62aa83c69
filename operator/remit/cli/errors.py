"""How the command line fails: one red line that says what is wrong, where and what to do. Never a traceback."""

from __future__ import annotations

import os
import re
import sys

from remit.errors import ApiError, RemitError
from remit.telemetry.logs import escape

FAILURE = 1
"""The exit code of whatever went wrong; wrong usage exits with 2."""
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


def report(error: BaseException) -> int:
    """Tell the user on standard error. Gives the exit code."""
    if wants_traceback(error):
        raise error
    complain(described(error) + pointer(error))
    return FAILURE


def wants_traceback(error: BaseException) -> bool:
    """Whether it is a mistake of Remit's own, and whoever looks for it has asked to see where."""
    return not isinstance(error, RemitError | OSError) and bool(os.environ.get("REMIT_DEBUG"))


def pointer(error: BaseException) -> str:
    """The page with the remedy, for an error whose reason has one and whose message does not name it."""
    if not isinstance(error, RemitError) or isinstance(error, ApiError) or not error.reason or not error.remedy:
        return ""
    return "" if error.code in str(error) else f" (see 'remit errors {error.code}')"


def described(error: BaseException) -> str:
    """What the user is told."""
    if isinstance(error, RemitError):
        return explained(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return f"a mistake of Remit's own: {type(error).__name__}: {error}. REMIT_DEBUG=1 shows where; please report it"


def explained(error: RemitError) -> str:
    """The error's message, and what to do where an API server's own words leave that open."""
    message = str(error)
    if not isinstance(error, ApiError):
        return message
    if error.status == 401:
        return (
            f"{message}: the server does not accept the kubeconfig's login; log in again, or use the kubeconfig that "
            "'remit up' wrote when it last started"
        )
    if error.status == 403:
        return f"{message}; ask for a role that allows it"
    if error.status == 404 and (missing := re.fullmatch(r'namespaces "(\S+)" not found', message)):
        return f"there is no namespace {missing[1]}; make it with 'kubectl create namespace {missing[1]}'"
    if error.status == 404 and ("could not find the requested resource" in message or "page not found" in message):
        return "the API server does not know Remit's kinds; install them: remit crds | kubectl apply --server-side -f -"
    if error.status == 503 and error.reason != "CertificateNotTrusted":
        return f"{message}; is it running? 'remit up' starts one on this machine"
    return message


def complain(message: str) -> None:
    red, plain = ("\x1b[31m", "\x1b[0m") if _colourful() else ("", "")
    sys.stderr.write(f"{red}error: {escape(' '.join(message.split()))}{plain}\n")


def _colourful() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
