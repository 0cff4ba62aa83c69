"""An engine behind SSH, as a local socket: each connection to it runs `docker system dial-stdio` over there.

It is how Docker's own client does it, with the system's `ssh`: its configuration, keys, agent and known hosts hold. The
SDK's way has no time limits, and asks for passwords on the operator's terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from remit.backends.failure import OperationFailed
from remit.backends.subprocesses import start_subprocess
from remit.policy.engines import EngineAddress

_CONNECT_SECONDS: Final = 10
_CHUNK: Final = 1 << 16
_PASSED_ON: Final = ("HOME", "PATH", "USER", "LOGNAME", "SSH_AUTH_SOCK")
_WORDS: Final = 300
_END_SECONDS: Final = 5.0
"""How long `ssh` may take to end, and its connections to be closed."""


class Tunnel:
    """A tunnel to the engine at `address`, whose scheme is `ssh`."""

    def __init__(self, address: EngineAddress) -> None:
        self._address = address
        self._folder = Path()
        self._server: asyncio.Server | None = None
        self._going: set[asyncio.Task[None]] = set()
        self.said = ""
        """What `ssh` complained of last; empty once a connection was made."""

    async def open(self) -> str:
        """The address of the socket, for the SDK. Raises OperationFailed where there is no `ssh`."""
        if self._server is None:
            self._folder = Path(tempfile.mkdtemp(prefix="remit-ssh-"))  # the path of a socket must be short
            arguments = _arguments(self._address)
            path = self._folder / "docker.sock"
            self._server = await asyncio.start_unix_server(lambda *pair: self._serve(arguments, *pair), path)
        return f"unix://{self._folder}/docker.sock"

    async def close(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for task in (going := list(self._going)):
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await server.wait_closed()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _serve(self, arguments: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a server runs us in one
        self._going.add(task)
        try:
            await self._carry(arguments, reader, writer)
        except (OSError, asyncio.CancelledError) as error:  # there is no caller; the connection just ends
            self.said = str(error) if isinstance(error, OSError) else self.said
        finally:
            writer.close()
            self._going.discard(task)

    async def _carry(self, arguments: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        child = await start_subprocess(
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            start_new_session=True,
        )
        assert child.stdin and child.stdout and child.stderr  # noqa: S101  # they are pipes
        sending = asyncio.create_task(_copy(reader, child.stdin))
        complaining = asyncio.create_task(_last_line(child.stderr))
        try:
            if await _copy(child.stdout, writer):
                self.said = ""
            else:
                self.said = await complaining
        finally:
            sending.cancel()
            complaining.cancel()
            await asyncio.gather(sending, complaining, _end(child), return_exceptions=True)


async def _end(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await child.wait()
        except TimeoutError:  # the process hangs; the event loop reaps it when it has ended
            child.kill()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> bool:
    """Copy until the source ends. Return whether there was anything."""
    anything = False
    with contextlib.suppress(ConnectionError):
        while piece := await source.read(_CHUNK):
            anything = True
            sink.write(piece)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
    return anything


async def _last_line(source: asyncio.StreamReader) -> str:
    """The last that comes before its end."""
    end = b""
    while piece := await source.read(_CHUNK):
        end = (end + piece)[-_WORDS:]
    lines = end.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _arguments(address: EngineAddress) -> list[str]:
    program = shutil.which("ssh")
    if program is None:
        raise OperationFailed("SshMissing", "there is no ssh on the operator's host; install an OpenSSH client")
    who = ["-l", address.user] if address.user else []
    where = ["-p", str(address.port)] if address.port else []
    options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}"]
    return [program, *options, *who, *where, "--", str(address.host), "docker", "system", "dial-stdio"]
