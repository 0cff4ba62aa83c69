"""Copies an open file to a program's standard input, in a thread, a piece at a time.

No more of it than one piece is ever in memory. What the program does not read is not read from the disk either.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from functools import partial
from typing import Final

from remit.backends.base import AttemptRequest
from remit.backends.hostmounts import open_stdin
from remit.errors import OutcomeUnknown
from remit.sandbox import Identities

_PIECE: Final = 256 * 1024
_FAILED: Final = (
    "standard input could not be handed over: {}; the program was ended before it saw an end of its input, and may have"
    " done part of its work"
)


class Feed:
    """One copy of as much as the file has now. What is appended later is not part of it; a file that becomes shorter,
    or cannot be read, makes it fail: an end that is none must not look like one to the program."""

    def __init__(self, file: int, name: str) -> None:
        """Takes `file` over. `name` is for messages."""
        self._file, self._name, self._started = file, name, False
        self._size = os.fstat(file).st_size
        self.complete = False
        """Whether the program has been given all, or has taken what it wanted."""
        self.failure: str | None = None
        """Why it cannot be given more."""

    def start(self, copying: Callable[[], None]) -> threading.Thread:
        """Have `copying`, which calls `copy`, run in a thread of its own, which has the file from now on."""
        self._started = True
        thread = threading.Thread(target=copying, name="stdin", daemon=True)
        try:
            thread.start()
        except BaseException:
            self._started = False
            raise
        return thread

    def copy(self, write: Callable[[bytes], bool]) -> None:
        """Hand it to `write`, which says whether more is wanted. Blocks; raises nothing."""
        left = self._size
        try:
            while left:
                piece = os.read(self._file, min(_PIECE, left))
                if not piece:
                    self.failure = f"{self._name} became shorter while it was read, by {left} bytes"
                    return
                if not write(piece):
                    break
                left -= len(piece)
            self.complete = True
        except OSError as error:
            self.failure = f"{self._name} cannot be read: {error.strerror}"
        finally:
            os.close(self._file)

    def close(self) -> None:
        """Close a feed that was not started."""
        if not self._started:
            os.close(self._file)

    def check(self) -> None:
        """Raises OutcomeUnknown where it failed, and the program was ended for that."""
        if self.failure:
            raise OutcomeUnknown(_FAILED.format(self.failure))


@contextlib.asynccontextmanager
async def opened_feed(
    request: AttemptRequest, identities: Identities | None, protected: Iterable[str]
) -> AsyncGenerator[Feed | None, None]:
    """That of the file that `request` has as its standard input; None: it has none.

    Raises InvalidInput for a file that is not there, or must not be read, and BackendError for a host that does not
    answer.
    """
    if (wanted := request.confinement.stdin_file) is None:
        yield None
        return
    name = f"{wanted.path}/{wanted.sub_path}" if wanted.sub_path else wanted.path
    feed = Feed(await open_stdin(wanted, identities, protected), name)
    try:
        yield feed
    finally:
        feed.close()


class PipeFeed:
    """A feed by a pipe: the program reads from `source`.

    The thread ends when all is copied, when nobody can read it any more, or when this is closed. Where the host does
    not answer a read it is left behind, with what it has open.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.source, self._target = os.pipe2(os.O_CLOEXEC)
        self._stopped, self._stop = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._target, False)
        self._started = False
        self.check = feed.check

    def begin(self, on_failure: Callable[[], None]) -> None:
        """The program has `source`. `on_failure` is called on this event loop: the program must be ended."""
        loop = asyncio.get_running_loop()

        def failed() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(on_failure)

        self._feed.start(partial(self._run, failed))
        self._started = True
        os.close(self.source)

    def close(self) -> None:
        os.close(self._stop)
        if not self._started:
            for descriptor in (self.source, self._target, self._stopped):
                os.close(descriptor)

    def _run(self, failed: Callable[[], None]) -> None:
        try:
            self._feed.copy(self._write)
            if self._feed.failure:
                failed()
                self._wait(0)  # keep the pipe open until stopped, so that the program sees no end of input
        finally:
            os.close(self._target)
            os.close(self._stopped)

    def _write(self, piece: bytes) -> bool:
        view = memoryview(piece)
        while view:
            if not self._wait(select.POLLOUT):
                return False
            try:
                view = view[os.write(self._target, view) :]
            except BlockingIOError:  # there is space in the pipe, but less than a page
                continue
            except BrokenPipeError:
                return False
        return True

    def _wait(self, events: int) -> bool:
        """Wait until one of `events` occurs on the pipe. False: nobody reads it any more, or it was closed."""
        poller = select.poll()
        poller.register(self._stopped, 0)
        poller.register(self._target, events)
        found = dict(poller.poll())
        return self._stopped not in found and not found.get(self._target, 0) & select.POLLERR


@contextlib.asynccontextmanager
async def opened_pipe(
    request: AttemptRequest, identities: Identities | None, protected: Iterable[str]
) -> AsyncGenerator[PipeFeed | None, None]:
    """The same by a pipe. Raises as `opened_feed` does."""
    async with opened_feed(request, identities, protected) as feed:
        pipe = PipeFeed(feed) if feed else None
        try:
            yield pipe
        finally:
            if pipe:
                pipe.close()
