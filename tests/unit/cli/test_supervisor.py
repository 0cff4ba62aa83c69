"""Tests the decisions of the supervisor of `remit up`, and how it forwards the output of its processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from remit.cli.supervisor import supervisor, worker
from remit.cli.supervisor.channel import pair, receive, send
from remit.cli.supervisor.logstream import LogStream
from remit.cli.supervisor.restarts import MAX_FAILED_STARTS, MAX_SECONDS, STEADY_SECONDS, Restarts
from remit.cli.supervisor.service import Supervised
from remit.cli.supervisor.supervisor import Service
from remit.cli.supervisor.worker import Lines, Worker
from remit.errors import InvalidInput, RemitError
from remit.telemetry.logfile import LogFile
from simulatedtime import simulate


def test_restarts_are_slower_each_time_and_never_end_where_it_comes_up() -> None:
    history, delays = Restarts(), []
    for _ in range(20):
        history = history.after_end(ready_seconds=1.0)
        delays.append(history.delay)
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert delays[-1] == MAX_SECONDS


def test_what_was_ready_for_long_begins_anew() -> None:
    history = Restarts(in_row=7, failed_starts=3).after_end(STEADY_SECONDS)
    assert history == Restarts(in_row=1, failed_starts=0)


def test_what_never_comes_up_is_given_up() -> None:
    history = Restarts()
    for _ in range(MAX_FAILED_STARTS - 1):
        history = history.after_end(None)
        assert history.delay is not None
    assert history.after_end(None).delay is None
    assert history.after_end(1.0).after_end(None).delay is not None, "it did come up in between"


def test_lines_are_passed_on_whole() -> None:
    passed: list[bytes] = []
    lines = Lines(passed.append)
    for chunk in (b"a", b"b\nc\nd", b"", b"e\n", b"f"):
        lines.feed(chunk)
    assert passed == [b"ab\nc\n", b"de\n"]
    lines.close()
    lines.close()
    assert passed[2:] == [b"f\n"]


def test_a_line_without_end_is_passed_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_LONGEST_LINE", 10)
    passed: list[bytes] = []
    lines = Lines(passed.append)
    for _ in range(3):
        lines.feed(b"1234567")
    assert passed == [b"12345671234567\n"]


def test_messages_to_nobody_are_lost_and_no_more_come() -> None:
    ours, theirs = pair()
    with ours:
        with theirs:
            send(theirs, {"ready": {"a": 1}})
            assert receive(ours) == {"ready": {"a": 1}}
        send(ours, {"a": 1})
        assert receive(ours) is None


def test_the_usual_ports_may_all_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(supervisor, "USUAL_PORT", taken.getsockname()[1])
        monkeypatch.setattr(supervisor, "_TRIES", 1)
        with pytest.raises(RemitError, match="are taken; choose one with --port"):
            supervisor._listening("127.0.0.1", None)
        with pytest.raises(InvalidInput, match="cannot serve on"):
            supervisor._listening("127.0.0.1", taken.getsockname()[1])


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provides the path of the program that a worker runs, to be written by the test."""
    path = tmp_path / "program.py"
    monkeypatch.setattr(worker, "_PROGRAM", path)
    monkeypatch.setattr("remit.cli.supervisor.restarts.INITIAL_SECONDS", 0.01)
    return path


async def test_what_a_process_said_last_is_known_when_it_has_ended(program: Path) -> None:
    program.write_text("import sys; print('out'); sys.stderr.write('half a line'); sys.exit(3)")
    said: list[bytes] = []
    process = Worker("role", [], said.append)
    async with asyncio.timeout(60):
        assert await process.ended == "exit code 3"
    assert b"".join(said).splitlines() in ([b"half a lineout"], [b"out", b"half a line"])
    assert process.ready.cancelled()
    process.ask_to_stop()  # too late, and not an error


async def test_output_that_others_hold_open_does_not_delay_the_end(program: Path) -> None:
    program.write_text("import subprocess, sys; subprocess.Popen(['sleep', '77'], start_new_session=True); sys.exit(0)")
    process = Worker("role", [], lambda lines: None)
    async with asyncio.timeout(60):
        assert await process.ended == "exit code 0"


async def test_a_process_that_is_killed_at_each_start_is_given_up(program: Path) -> None:
    program.write_text("import os; os.kill(os.getpid(), 9)")
    service = Service("part", "role")
    with pytest.raises(RemitError, match=r"the part does not come up, after 5 tries: signal 9 \(Killed\)"):
        await service.keep(dict)


async def test_a_process_that_cannot_be_started_is_tried_again(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(RemitError, match=r"does not come up, after 5 tries: it cannot be started: .*program\.py"):
        await Service("part", "role").keep(dict)


async def test_a_stop_ends_the_wait_for_the_next_start(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.cli.supervisor.restarts.INITIAL_SECONDS", 600.0)
    monkeypatch.setattr("remit.cli.supervisor.restarts.MAX_SECONDS", 600.0)
    program.write_text("")
    service = Service("part", "role")
    keeping = asyncio.ensure_future(service.keep(dict))
    async with asyncio.timeout(60):
        while service.worker is None:
            await asyncio.sleep(0.01)
        await service.worker.ended
        await service.stop(60)
        await keeping


async def test_what_another_part_is_needed_for_is_stopped_before_it_begins(program: Path) -> None:
    program.write_text("import socket, sys; sys.exit(len(socket.socket(fileno=int(sys.argv[2])).recv(99)))")
    service = Service("part", "role", requires=Service("other", "role"))
    keeping = asyncio.ensure_future(service.keep(dict))
    async with asyncio.timeout(60):
        while service.worker is None:
            await asyncio.sleep(0.01)
        await service.stop(60)
        await keeping


async def test_a_part_that_says_nothing_as_it_stops_is_killed(program: Path) -> None:
    program.write_text("import signal; signal.pause()")
    service = Service("part", "role")
    keeping = asyncio.ensure_future(service.keep(dict))
    async with asyncio.timeout(60):
        while service.worker is None:
            await asyncio.sleep(0.01)
        ended = service.worker.ended
        await service.stop(0.1, unless_heard=True)
        await keeping
        assert await ended == "signal 9 (Killed)"


async def test_a_part_that_says_nothing_as_it_starts_is_killed_and_tried_again(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_START_SECONDS", 0.1)
    program.write_text("import signal; signal.pause()")
    async with asyncio.timeout(60):
        with pytest.raises(
            RemitError, match=r"after 5 tries: it said nothing for 0\.1 s while it started, and was killed"
        ):
            await Service("part", "role").keep(dict)


async def test_a_part_that_does_not_die_is_not_waited_for(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_KILL_SECONDS", 0.1)
    monkeypatch.setattr(Worker, "kill", lambda self: None)  # as for a process that waits for a disk
    program.write_text("import signal; signal.pause()")
    service = Service("part", "role")
    keeping = asyncio.ensure_future(service.keep(dict))
    async with asyncio.timeout(60):
        while service.worker is None:
            await asyncio.sleep(0.01)
        await service.stop(0.1)
        assert not keeping.done()
        keeping.cancel()
        os.kill(service.worker.pid, signal.SIGKILL)
        await asyncio.wait({keeping})
    service.worker.wait(60)


def test_whoever_says_that_it_is_at_it_has_its_time() -> None:
    async def scenario() -> None:
        loop, heard = asyncio.get_running_loop(), [0.0]
        never = loop.create_future()
        for moment in range(9, 900, 9):
            loop.call_at(moment, heard.__setitem__, 0, float(moment))
        assert not await supervisor._in_time(never, 10, lambda: heard[0])
        assert loop.time() == pytest.approx(910, abs=10)
        loop.call_later(5, never.set_result, None)
        assert await supervisor._in_time(never, 10, lambda: 0.0)

    simulate(scenario())


def test_a_log_that_nobody_reads_holds_up_nobody_and_tells_what_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    told, (reader, writer) = list[int](), os.pipe()
    monkeypatch.setattr("remit.cli.supervisor.logstream.log.warning", lambda event, lines: told.append(lines))
    stream, line = LogStream(writer, most_bytes=1 << 20), b"x" * 99 + b"\n"
    for _ in range(20_000):  # twice as much as may wait, and far more than a pipe holds
        stream.pass_on(line)
    assert not stream.drain(0)
    with os.fdopen(reader, "rb") as log, ThreadPoolExecutor(1) as reading:
        read = reading.submit(log.read)
        assert stream.drain(60), "there is a reader again"
        stream.write("once more\n")
        assert stream.drain(60)
        os.close(writer)
        *kept, last = read.result(60).splitlines(keepends=True)
    assert last == b"once more\n"
    assert set(kept) == {line}
    assert told == [20_000 - len(kept)]


@pytest.mark.parametrize(("leaps", "said"), [(100, True), (1, False)], ids=["it says so", "everything stood still"])
async def test_a_part_that_stops_has_its_time(
    program: Path, monkeypatch: pytest.MonkeyPatch, leaps: int, said: bool
) -> None:
    """The process ends by itself, although this takes longer, by the clock, than it may be silent."""
    program.write_text("import signal; signal.pause()")
    service, loop = Service("part", "role"), asyncio.get_running_loop()
    keeping = asyncio.ensure_future(service.keep(dict))
    while service.worker is None:
        await asyncio.sleep(0.01)
    worker, time, ahead = service.worker, loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: time() + ahead)
    stopping = asyncio.ensure_future(service.stop(60, unless_heard=True))
    for _ in range(leaps):
        await asyncio.sleep(0)
        ahead += 3600
        worker.heard = loop.time() if said else worker.heard
        for _ in range(5):
            await asyncio.sleep(0)
    os.kill(worker.pid, signal.SIGTERM)
    await asyncio.gather(stopping, keeping)
    assert await worker.ended == "signal 15 (Terminated)"


async def test_a_process_says_that_it_stops() -> None:
    ours, theirs = pair()
    with ours, theirs:
        ours.setblocking(False)
        with Supervised(theirs).stop_requested() as stop:
            ours.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(60):
                await stop.wait()
            assert receive(ours) == {"starting": True}
            assert receive(ours) == {"stopping": True}


def package(folder: Path, does: str) -> Path:
    """Returns a package `remit` that does only this."""
    (folder / "remit").mkdir(parents=True)
    (folder / "remit" / "__init__.py").write_text(does)
    return folder


def test_a_process_is_of_the_version_of_its_supervisor_although_another_is_installed(tmp_path: Path) -> None:
    packages = package(tmp_path / "ours", "raise SystemExit('ours')")
    command = [sys.executable, "-P", str(worker._PROGRAM), "operator", "0", str(os.getpid()), str(packages)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == "ours\n"


@pytest.mark.parametrize("isolated", [True, False])
def test_a_process_believes_the_environment_only_if_its_supervisor_does(tmp_path: Path, isolated: bool) -> None:
    """As for programs whose first line contains `python -I`."""
    elsewhere = package(tmp_path / "elsewhere", "raise SystemExit('elsewhere')")
    program = (
        "import asyncio, os, sys; from remit.cli.supervisor.worker import Worker\n"
        "async def main():\n"
        f"    os.environ['PYTHONPATH'] = {str(elsewhere)!r}\n"
        "    worker = Worker('operator', [], sys.stdout.buffer.write)\n"
        "    worker.ask_to_stop()\n"
        "    await worker.ended\n"
        "asyncio.run(main())\n"
    )
    options = ["-I"] if isolated else []
    done = subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == ("" if isolated else "elsewhere\n")


def test_what_a_part_leaves_behind_is_reaped_and_the_parts_are_not() -> None:
    program = (
        "import os, subprocess, sys\n"
        "from remit.cli.supervisor.supervisor import reap_orphans\n"
        "def ended():\n"
        "    process = subprocess.Popen(['/bin/sh', '-c', 'exit 7'])\n"
        "    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)\n"
        "    return process\n"
        "reap_orphans([])\n"
        "orphan = ended()\n"
        "reap_orphans([])\n"
        "try: os.waitpid(orphan.pid, 0)\n"
        "except ChildProcessError: print('reaped')\n"
        "part = ended()\n"
        "reap_orphans([part.pid])\n"
        "print(part.wait())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "reaped\n7\n"


def test_no_other_port_is_tried_on_a_host_that_has_no_address() -> None:
    with pytest.raises(InvalidInput, match=r"cannot serve on nosuch\.invalid"):
        supervisor._listening("nosuch.invalid", None)


def test_a_log_file_gets_what_standard_error_would(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "remit.log", max_bytes=100)
    stream = LogStream(2, file=file)
    assert not stream.isatty()
    for number in range(10):
        stream.pass_on(f"line {number} of a part\n".encode())
    assert stream.drain(60)
    rotated = (tmp_path / "remit.log.1").read_text() + (tmp_path / "remit.log").read_text()
    assert rotated.splitlines()[-1] == "line 9 of a part"
    file.close()
