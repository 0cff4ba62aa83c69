"""Performs file operations in a thread, so that a slow disk holds up nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from remit.api.operations import FileOperation
from remit.backends.base import OutputSink
from remit.backends.breaker import Breaker
from remit.backends.failure import OperationFailed
from remit.operations.base import OperationRequest
from remit.operations.file.access import Access
from remit.operations.file.actions import ACTIONS
from remit.operations.file.errors import Stopped, failure
from remit.operations.file.job import Job
from remit.operations.file.pulling import Pulled
from remit.operations.file.writing import Limit
from remit.policy.grant import Grant
from remit.threads import DaemonThreadPool

Download = Callable[[Grant, str], AsyncIterator[bytes]]
"""What an address holds, piece by piece, if the policies that gave the grant allow it to be read."""
MOST_DOWNLOADED: Final = 1 << 30
"""Bytes of a file that is downloaded, unless `resources.fileSize` or a policy says otherwise."""
_THREADS: Final = 1024
"""More than an operator runs at once; they come as they are needed."""


class FileExecutor:
    """Files of the host (or of the pod's volumes) that the operator's user may reach.

    `protected` are directories that no policy opens: the operator's state and credentials. `download` gets what
    `contentFrom.url` names.
    """

    breaker: Breaker | None = None

    def __init__(self, protected: Sequence[Path] = (), download: Download | None = None) -> None:
        self._download = download
        # A separate pool, because each operation may wait long for a disk or a server, and the event loop's few threads
        # serve everything else.
        self._threads = DaemonThreadPool(_THREADS, thread_name_prefix="file")
        self._protected = [str(path.resolve()) for path in protected]

    async def execute(self, request: OperationRequest, output: OutputSink) -> str:
        """See `OperationExecutor.execute`."""
        file, stop = request.subject, threading.Event()
        assert isinstance(file, FileOperation)  # noqa: S101  # by its operation
        loop = asyncio.get_running_loop()

        async def write(chunk: bytes) -> None:
            output.write("stdout", chunk)

        def emit(chunk: bytes) -> None:  # waits for each chunk, so that a file larger than memory is never queued
            asyncio.run_coroutine_threadsafe(write(chunk), loop).result()

        pulled = self._pulled(request, file, loop)
        job = Job(
            file=file,
            access=Access(request.grant, file, self._protected, stop),
            content=content(request, file) if pulled is None else pulled,
            emit=emit,
            limit=Limit(request.limits.file_size or (MOST_DOWNLOADED if pulled else None)),
            effect=request.effect,
        )
        doing: asyncio.Future[str] | None = None
        try:
            doing = loop.run_in_executor(self._threads, act, job)
            return await asyncio.shield(doing)
        except BaseException as error:
            if doing is None or doing.done():
                raise
            stop.set()
            if pulled is not None:
                pulled.stop()
            with contextlib.suppress(Stopped):
                done = await doing
                if isinstance(error, asyncio.CancelledError):
                    return done  # the operation completed before the cancellation reached it
            raise
        finally:
            if pulled is not None:
                await pulled.close()

    def _pulled(self, request: OperationRequest, file: FileOperation, loop: asyncio.AbstractEventLoop) -> Pulled | None:
        url = file.content_from.url if file.content_from else None
        if url is None:
            return None
        if self._download is None:
            message = "spec.file.contentFrom.url: nothing here downloads; use an operator"
            raise OperationFailed("NotSupported", message, retryable=False)
        return Pulled(self._download(request.grant, url), loop)

    async def close(self) -> None:
        """See `OperationExecutor.close`."""
        self._threads.shutdown(wait=False)


def content(request: OperationRequest, file: FileOperation) -> Iterable[bytes]:
    """The content to be written: as it stands, or what it refers to."""
    if file.content is not None:
        return [file.content.encode()]
    if file.content_from is not None:
        return [value for path, value in request.values.items() if path.startswith("contentFrom.")]
    return []


def act(job: Job) -> str:
    """Do it; one sentence on what was done. Raises `OperationFailed`, `PolicyDenied` and `Stopped`. Blocks."""
    try:
        return ACTIONS[job.file.operation](job) + str(job.access.left_out)
    except OSError as error:
        raise failure(error, job.file, job.file.path) from error
    except RecursionError as error:
        raise OperationFailed("TooDeep", f"{job.file.path} is nested too deeply", retryable=False) from error
