"""How an attempt ended, in the words of status: what the run store keeps, and what status and the audit trail say."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from remit.api.base import MicroTime
from remit.api.executiontaskstatus import NetworkStatus, OutputStatus, SandboxStatus, UsageStatus
from remit.backends import AttemptRequest, ExitReason, NetworkUse, Outcome
from remit.execution.lifecycle import CANCELLED, COMPLETED, TIMEOUT, Ended
from remit.telemetry import Redactor

LOST: Final = "the operator was stopped while this attempt was running; nothing of it is alive"
_RAW_NOT_SHOWN: Final = (
    "status shows nothing of its output, which is kept raw: the secrets that it was given may have changed since, so"
    " they cannot be redacted"
)


class AttemptResult(BaseModel):
    """How an attempt ended, as the run store keeps it."""

    reason: str
    message: str
    exit_code: int | None = None
    category: str = ""
    retryable: bool = True
    finished_at: MicroTime
    exceeded: list[str] = []
    usage: UsageStatus | None = None
    output: OutputStatus | None = None
    output_digest: str = ""
    sandbox: SandboxStatus | None = None
    network: NetworkStatus | None = None
    destinations: list[dict[str, str | int]] = []
    """Where it connected to or wanted to, for the audit trail."""

    @property
    def ended(self) -> Ended:
        return Ended(self.reason, self.message, self.exit_code, self.category, self.retryable, tuple(self.exceeded))


def failed(reason: str, message: str) -> AttemptResult:
    """It ended just now, and there is nothing more to say of it."""
    return AttemptResult(reason=reason, message=message, finished_at=datetime.datetime.now(datetime.UTC))


def with_recovered(result: AttemptResult, output: OutputStatus) -> AttemptResult:
    """With what an operator that was lost had kept of the output."""
    message = f"{result.message}; {_RAW_NOT_SHOWN}" if output.raw else result.message
    return result.model_copy(update={"output": output, "message": message})


def of_outcome(outcome: Outcome, request: AttemptRequest) -> AttemptResult:
    """What a backend says of an attempt."""
    usage = outcome.usage
    return AttemptResult(
        **_with_refusals(_ended(outcome, request), outcome.network),
        finished_at=outcome.finished_at,
        usage=UsageStatus(
            cpu_seconds=round(usage.cpu_seconds, 3),
            max_memory_bytes=usage.max_memory_bytes,
            read_bytes=usage.read_bytes,
            written_bytes=usage.written_bytes,
            throttled_seconds=round(usage.throttled_seconds, 3),
            max_pids=usage.max_tasks,
        ),
        exceeded=list(outcome.exceeded),
        sandbox=SandboxStatus(
            layers=list(outcome.layers), missing=list(outcome.missing), limits=_by_field(outcome.enforced_by)
        ),
        **_network(outcome.network),
    )


def redacted(result: AttemptResult, redactor: Redactor) -> AttemptResult:
    """Only where words of others stand: a program may have put a secret into a host's name. `reason` and its kin are
    what is decided by."""
    network = result.network
    return result.model_copy(
        update={
            "message": redactor.redact_cut(result.message),
            "network": network and network.model_copy(update={"last_denied": redactor.redact_cut(network.last_denied)}),
            "destinations": [
                one | {"destination": redactor.redact(str(one["destination"]))} for one in result.destinations
            ],
        }
    )


def _network(use: NetworkUse | None) -> dict[str, Any]:
    if use is None:
        return {}
    known = dataclasses.asdict(use)
    destinations = [{to_camel(name): value for name, value in one.items()} for one in known.pop("destinations")]
    return {"network": NetworkStatus(**known), "destinations": destinations}


def _ended(outcome: Outcome, request: AttemptRequest) -> dict[str, str | int | None]:
    """Reason, message and exit code in the words of status."""
    match outcome.reason:
        case ExitReason.EXITED if outcome.exit_code == 0:
            return {"reason": COMPLETED, "message": "completed", "exit_code": 0}
        case ExitReason.EXITED:
            return {
                "reason": "ExitCode",
                "message": f"exited with code {outcome.exit_code}",
                "exit_code": outcome.exit_code,
            }
        case ExitReason.SIGNALED:
            return {"reason": "Signal", "message": outcome.message, "exit_code": 128 + (outcome.signal or 0)}
        case ExitReason.TIMED_OUT:
            return {
                "reason": TIMEOUT,
                "message": f"timed out after {request.timeout_seconds:g} s; everything it started was killed",
                "exit_code": outcome.exit_code,
            }
        case ExitReason.CANCELLED:
            return {
                "reason": CANCELLED,
                "message": "cancelled; everything it started was killed",
                "exit_code": outcome.exit_code,
            }
        case ExitReason.OOM_KILLED:
            return {"reason": "OOMKilled", "message": outcome.message, "exit_code": 137}
        case _:
            return {"reason": str(outcome.reason), "message": outcome.message, "exit_code": outcome.exit_code}


_FIELDS = {
    "memory_bytes": "memory",
    "cpu_cores": "cpu",
    "pids": "pids",
    "disk_bytes": "disk",
    "file_bytes": "fileSize",
    "open_files": "openFiles",
    "disk_bytes_per_second": "diskBytesPerSecond",
    "network_bytes_per_second": "networkBytesPerSecond",
}


def _by_field(enforced_by: Mapping[str, str]) -> dict[str, str]:
    """What holds each limit, by the names that users know."""
    return {_FIELDS[name]: by for name, by in enforced_by.items()}


def _with_refusals(ended: dict[str, str | int | None], use: NetworkUse | None) -> dict[str, str | int | None]:
    """A program that fails after it was refused a connection has most likely failed of that."""
    if use is None or not use.denied or ended["reason"] == COMPLETED:
        return ended
    count = f"the last of {use.denied} refused connections" if use.denied > 1 else "a refused connection"
    return ended | {"message": f"{ended['message']}; {count}: {use.last_denied}"}
