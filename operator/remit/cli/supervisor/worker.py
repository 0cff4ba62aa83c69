"""One process, as its supervisor sees it: started, spoken to, listened to, and seen to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from remit.cli.supervisor.channel import Message, pair, receive, send

_PROGRAM: Final = Path(__file__).parent / "__main__.py"
_PACKAGES: Final = Path(__file__).parents[3]
_READ_BYTES: Final = 1 << 16
_LAST_READS: Final = 32
"""More than a pipe holds."""
_LONGEST_LINE: Final = 1 << 20


class Lines:
    """Passes a stream on in whole lines, so that those of several processes do not mix."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """A line beyond a mebibyte is passed on in pieces."""
        complete, newline, rest = chunk.rpartition(b"\n")
        if newline:
            self._write(self._rest + complete + newline)
            self._rest = rest
        else:
            self._rest += rest
        if len(self._rest) > _LONGEST_LINE:
            self.close()

    def close(self) -> None:
        """What there is of an unfinished line is a line."""
        if self._rest:
            self._write(self._rest + b"\n")
            self._rest = b""


class Worker:
    """A process that runs a role of `remit.cli.supervisor`. Made in an event loop. Raises OSError."""

    def __init__(self, role: str, descriptors: Sequence[int], write: Callable[[bytes], None]) -> None:
        """It inherits `descriptors` under their numbers; `write` gets what it logs and prints, in whole lines."""
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Message] = loop.create_future()
        """What it said of itself when it began to serve; cancelled when it ended before."""
        self.ended: asyncio.Future[str] = loop.create_future()
        """Why it ended."""
        self.failure = ""
        """Why the process failed, in its own words."""
        self._given_up = ""
        self.heard = loop.time()
        """When it last said anything, on the loop's clock."""
        self._lines = Lines(write)
        self._channel, theirs = pair()
        self._output, output = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, *_interpreter_options(), str(_PROGRAM)),
                    *(role, str(theirs.fileno()), str(os.getpid()), str(_PACKAGES)),
                ],
                pass_fds=[theirs.fileno(), *descriptors],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches only the supervisor, which then stops its processes in order
            )
        except OSError:
            self._channel.close()
            os.close(self._output)
            raise
        finally:
            theirs.close()
            os.close(output)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._channel.setblocking(False)
        os.set_blocking(self._output, False)
        loop.add_reader(self._channel, self._on_message)
        loop.add_reader(self._output, self._on_output)
        loop.add_reader(self._pidfd, self._on_end)

    @property
    def pid(self) -> int:
        return self._process.pid

    def configure(self, settings: Message) -> None:
        """Have it begin."""
        send(self._channel, settings)

    def ask_to_stop(self) -> None:
        """Have it stop in order, also where it has not begun."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        self._process.kill()

    def give_up(self, reason: str) -> None:
        """Kill it for that reason."""
        self._given_up = reason
        self.kill()

    def wait(self, seconds: float) -> None:
        """Block until it has ended, but no longer than this."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def _on_message(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while message := receive(self._channel):
                self.heard = asyncio.get_running_loop().time()
                self.failure = message.get("failed", self.failure)
                if (facts := message.get("ready")) is not None and not self.ready.done():
                    self.ready.set_result(facts)
            asyncio.get_running_loop().remove_reader(self._channel)

    def _on_output(self, reads: int = 1) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(reads):
                if not (chunk := os.read(self._output, _READ_BYTES)):
                    asyncio.get_running_loop().remove_reader(self._output)
                    return
                self._lines.feed(chunk)

    def _on_end(self) -> None:
        """It is dead; what it said last is read before anyone is told. What it started may still hold its output."""
        code = self._process.wait()
        self._on_message()
        self._on_output(_LAST_READS)
        self._lines.close()
        self._close()
        self.ready.cancel()
        if not self.ended.done():  # the waiting caller was cancelled otherwise
            self.ended.set_result(self.failure or self._given_up or _told(code))

    def _close(self) -> None:
        loop = asyncio.get_running_loop()
        for source in (self._channel, self._output, self._pidfd):
            loop.remove_reader(source)
        self._channel.close()
        os.close(self._output)
        os.close(self._pidfd)


def _interpreter_options() -> list[str]:
    """The options of this interpreter by which modules are found, so that child processes find the same ones."""
    flags = {"-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site}
    return ["-P", *(option for option, is_set in flags.items() if is_set)]


def _told(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
