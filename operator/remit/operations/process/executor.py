"""Performs process operations on what is supervised."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

import orjson

from remit.api.operations import ProcessOperation
from remit.backends.base import OutputSink
from remit.backends.breaker import Breaker
from remit.backends.failure import OperationFailed
from remit.operations.base import OperationRequest
from remit.operations.process.supervision import DEFAULT_OUTPUT_BYTES, Supervision, Wanted


class ProcessExecutor:
    """Starts supervised processes and looks after them. A namespace sees its own alone."""

    breaker: Breaker | None = None

    def __init__(self, supervision: Supervision) -> None:
        self._supervision = supervision

    async def execute(self, request: OperationRequest, output: OutputSink) -> str:
        """See `OperationExecutor.execute`. What it tells is JSON on stdout."""
        process = request.subject
        assert isinstance(process, ProcessOperation)  # noqa: S101  # by its operation
        namespace, name = request.namespace, process.name or ""
        match process.action:
            case "start":
                return await self._start(request, process, output)
            case "stop":
                state = await self._supervision.stop(namespace, name)
                if state is None:
                    return f"process {name} was not running"
                _put(output, state)
                return f"process {name} is stopped, and everything it had started"
            case "signal":
                await self._supervision.signal(namespace, name, _number(process.signal or ""), request.effect)
                return f"sent {process.signal} to process {name}"
            case "usage":
                _put(output, await self._supervision.usage(namespace, name))
                return f"usage of process {name}"
            case "list":
                found = self._supervision.list(namespace)
                for each, state in found.items():
                    _put(output, {"name": each, **state})
                return f"{len(found)} process{'' if len(found) == 1 else 'es'}"
        state = await self._supervision.state(namespace, name)
        _put(output, {**state, **self._supervision.tails(namespace, name)})
        return f"process {name} is {state.get('phase')}"

    async def close(self) -> None:
        """Supervisors stay."""

    async def _start(self, request: OperationRequest, process: ProcessOperation, output: OutputSink) -> str:
        name = process.name or ""
        if request.run is None:
            raise OperationFailed("Invalid", "there is nothing to execute", retryable=False)
        state = await self._supervision.start(
            Wanted(
                namespace=request.namespace,
                name=name,
                request=request.run,
                restart_policy=process.restart_policy,
                task=request.task,
                max_output_bytes=request.limits.output_bytes or DEFAULT_OUTPUT_BYTES,
                secrets=request.secrets,
                effect=request.effect,
            )
        )
        if state["phase"] == "Failed":
            request.effect.settle()
            ended = state.get("lastExit", {})
            raise OperationFailed(
                "StartFailed", f"process {name} ended at once: {ended.get('message') or ended.get('reason')}"
            )
        _put(output, state)
        began = f"process {name} runs" if state["phase"] == "Running" else f"process {name} began: {state['phase']}"
        return f"{began}, as it did already" if state.get("same") else began


def _number(word: str) -> int:
    try:
        return signal.Signals[word]
    except KeyError:
        known = ", ".join(each.name for each in signal.Signals)
        message = f"spec.process.signal: this system has no signal {word}; it has {known}"
        raise OperationFailed("Invalid", message, retryable=False) from None


def _put(output: OutputSink, value: Mapping[str, Any]) -> None:
    output.write("stdout", orjson.dumps(value) + b"\n")
