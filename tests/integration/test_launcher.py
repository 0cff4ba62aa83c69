"""Tests the launcher, with which a Job's container starts: it runs one program and writes everything about it to one
log."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import signal
import socket
import struct
import subprocess
import termios
import uuid
from pathlib import Path

import pytest

from launchers import SECONDS, Log, first_process, launch, launcher, shell
from support import wait_until

LONGEST = 8000
"""Maximum length of the text of one record."""
RT_SIGACTION = {"x86_64": 13, "aarch64": 134}
"""Number of the system call."""
FORGED = b'= {"exitCode":0}'


def started(script: str, **more: object) -> subprocess.Popen[bytes]:
    command = [launcher(), "--", "/bin/sh", "-c", script]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0, **more)  # type: ignore[call-overload]


def ended(process: subprocess.Popen[bytes], already: bytes = b"") -> tuple[int, Log]:
    """Returns exit code and log, including what was `already` read."""
    rest, _ = process.communicate(timeout=SECONDS)
    return process.returncode, Log.of(already + rest)


def unread(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return struct.unpack("i", fcntl.ioctl(process.stdout, termios.FIONREAD, b"\0" * 4))[0]


def state(pid: int) -> str:
    """Returns the process state as in proc(5); empty if the process does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def runs(mark: str) -> bool:
    """Returns whether a process has this word on its command line."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in each.read_bytes().split(b"\0"):
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False


# What was said


def test_streams_stay_apart_and_unfinished_lines_do_not_get_an_end() -> None:
    code, log = shell("printf 'one\\n\\ntwo'; printf 'three\\nfour' >&2")

    assert code == 0
    assert (log.out, log.err) == (b"one\n\ntwo", b"three\nfour")
    assert sorted(log.raw.splitlines()[:-1]) == sorted([b"o one", b"o ", b"O two", b"e three", b"E four"])


@pytest.mark.parametrize("length", [LONGEST - 1, LONGEST, LONGEST + 1, 9 * 1024, 2 * LONGEST, 200_000])
@pytest.mark.parametrize("end", [b"", b"\n", b"\nnext\n"])
def test_a_long_line_comes_in_parts(length: int, end: bytes, tmp_path: Path) -> None:
    said = b"x" * length + end
    (tmp_path / "said").write_bytes(said)

    _, log = launch("/bin/cat", str(tmp_path / "said"))

    assert log.out == said
    assert max(map(len, log.raw.splitlines())) <= LONGEST + 2


def test_bytes_that_are_no_text_arrive_as_they_are(tmp_path: Path) -> None:
    said = bytes(range(256)) * 40 + b"\r\n\0\n= {}\n" + FORGED + b"\no \n\xff"
    (tmp_path / "said").write_bytes(said)

    _, log = launch("/bin/sh", "-c", 'cat "$1"; cat "$1" >&2', "-", str(tmp_path / "said"))

    assert (log.out, log.err) == (said, said)


def test_a_flood_arrives_whole() -> None:
    line, count = b"a short line\n", 4_000_000
    process = started(f"yes 'a short line' | head -n {count}; echo end >&2; exit 4")
    raw, _ = process.communicate(timeout=SECONDS)

    said, _, rest = raw.partition(b"e end\n")
    assert said == (b"o " + line) * count
    assert rest.startswith(b"= ")
    assert b'"stdoutBytes":%d,' % (len(line) * count) in rest
    assert process.returncode == 4


def test_what_is_said_last_is_not_lost_where_the_log_is_read_late() -> None:
    process = started("echo $$; exec 3>&2; head -c 65536 /dev/zero; head -c 65536 /dev/zero >&3")
    assert process.stdout is not None
    first = process.stdout.readline()
    wait_until(lambda: state(int(first[2:])) == "", "the program has ended")

    code, log = ended(process, first)

    assert code == 0
    assert (len(log.out), len(log.err)) == (len(first) - 2 + 65536, 65536)


def test_a_prompt_is_seen_while_the_other_stream_is_busy() -> None:
    process = started("printf prompt; exec yes >&2")
    assert process.stdout is not None
    read = bytearray()
    while not read.endswith(b"\nO prompt\n"):
        read += process.stdout.readline()

    process.terminate()
    assert ended(process, bytes(read))[0] == 128 + signal.SIGTERM


# How it ended


@pytest.mark.parametrize("code", [0, 3, 126, 137, 255])
def test_it_exits_as_the_program_does(code: int) -> None:
    got, log = shell(f"exit {code}")

    assert got == code
    assert log.ended is not None
    assert (log.ended.exit_code, log.ended.signal, log.ended.error) == (code, 0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE])
def test_a_signal_is_reported(number: signal.Signals) -> None:
    got, log = shell(f"kill -{number.value} $$")

    assert got == 128 + number
    assert log.ended is not None
    assert (log.ended.exit_code, log.ended.signal) == (128 + number, number)


def test_the_last_record_says_what_was_used() -> None:
    _, log = shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")

    assert log.ended is not None
    assert log.ended.cpu_seconds > 0
    assert log.ended.max_memory_bytes > 100_000


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_stop_reaches_the_whole_group(stop: signal.Signals) -> None:
    number = stop.value
    child = f"trap 'echo child; exit' {number}; echo ready; while :; do sleep 0.1; done"
    process = started(f"trap 'wait; echo parent; exit 5' {number}; ({child}) & wait")
    assert process.stdout is not None
    first = process.stdout.readline()

    process.send_signal(stop)
    code, log = ended(process, first)

    assert (code, log.out) == (5, b"ready\nchild\nparent\n")


def test_a_signal_to_stop_reaches_a_program_while_the_log_is_not_read(tmp_path: Path) -> None:
    ready, got = tmp_path / "ready", tmp_path / "got"
    process = started(f"trap 'touch {got}; kill $!; exit 3' TERM; yes & touch {ready}; wait")
    wait_until(ready.exists, "the trap is set")
    wait_until(lambda: unread(process) == 65536, "the log takes no more")

    process.terminate()
    wait_until(got.exists, "the program has got the signal")

    assert ended(process)[0] == 3


def test_a_program_that_is_stopped_can_be_ended() -> None:
    process = started("echo $$; kill -STOP $$; exit 3")
    assert process.stdout is not None
    first = process.stdout.readline()
    wait_until(lambda: state(int(first[2:])) == "T", "the program is stopped")

    process.terminate()
    code, _ = ended(process, first)

    assert code == 128 + signal.SIGTERM


def test_who_holds_the_output_does_not_delay_the_end() -> None:
    code, log = shell("sleep 1000 & echo $!; exit 6")

    os.kill(int(log.out), signal.SIGKILL)
    assert code == 6


def test_what_the_program_leaves_behind_ends_with_it() -> None:
    mark = f"1000.{uuid.uuid4().int}"
    code, log = shell(
        f"setsid sleep {mark} & until ls -l /proc/$!/exe | grep -qv setsid; do :; done; exit 7", first=True
    )

    assert (code, log.unexpected) == (7, b"")
    assert not runs(mark)


def test_a_writer_that_is_left_behind_delays_nothing() -> None:
    code, _ = shell("yes & yes >&2 & exit 8", first=True)

    assert code == 8


def test_orphans_do_not_stay_as_zombies() -> None:
    orphans = "i=0; while [ $i -lt 20 ]; do (true &); i=$((i+1)); done"
    code, _ = shell(f"{orphans}; while cat /proc/[0-9]*/stat 2>/dev/null | grep -q ') Z 1 '; do :; done", first=True)

    assert code == 0


# What cannot be started


def test_a_program_that_does_not_exist() -> None:
    for program in ("/nowhere/at-all", "no-such-program", ""):
        code, log = launch(program)

        assert code == 126
        assert log.ended is not None
        assert (log.ended.error, log.ended.errno) == ("exec", errno.ENOENT)
        assert log.unexpected == b""


def test_a_file_that_is_no_program_is_given_to_no_shell(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("echo from a shell\n")
    for mode, why in ((0o755, errno.ENOEXEC), (0o644, errno.EACCES)):
        text.chmod(mode)
        for program in (str(text), "text"):
            code, log = launch(program, env={"PATH": f"/nowhere:{tmp_path}"})

            assert code == 126
            assert log.ended is not None
            assert (log.ended.error, log.ended.errno, log.out) == ("exec", why, b"")


def test_the_folder_has_no_programs_unless_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "program").symlink_to("/bin/true")
    for path in ("", ".", f":{'/x' * 3000}:"):
        code, _ = launch("program", options=["-C", str(tmp_path)], env={"PATH": path})
        assert code == 126

    assert launch("./program", options=["-C", str(tmp_path)])[0] == 0
    assert launch("program", env={"PATH": f"/bin:{tmp_path}"})[0] == 0


def test_a_folder_that_does_not_exist() -> None:
    code, log = launch("/bin/true", options=["-C", "/nowhere"])

    assert code == 126
    assert log.ended is not None
    assert (log.ended.error, log.ended.errno) == ("chdir", errno.ENOENT)


def test_input_comes_from_a_file_or_is_empty(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"what it reads\n")

    assert launch("/bin/cat", options=["-i", str(tmp_path / "input")])[1].out == b"what it reads\n"
    assert launch("/bin/cat", input=b"not its own", stdin=None)[1].out == b""
    code, log = launch("/bin/cat", options=["-i", str(tmp_path / "missing")])
    assert code == 126
    assert log.ended is not None
    assert (log.ended.error, log.ended.errno) == ("stdin", errno.ENOENT)


def test_the_program_runs_in_its_folder_with_its_arguments(tmp_path: Path) -> None:
    code, log = launch(
        "/bin/sh", "-c", 'pwd; printf "%s|" "$@"', "-", "-C", "--", "", "a b", options=["-C", str(tmp_path)]
    )

    assert (code, log.out) == (0, f"{tmp_path}\n-C|--||a b|".encode())


@pytest.mark.parametrize("options", [["-x"], ["-C"], []])
def test_a_wrong_command_line(options: list[str]) -> None:
    done = subprocess.run([launcher(), *options], capture_output=True, timeout=SECONDS)

    log = Log.of(done.stdout)
    assert done.returncode == 126
    assert log.ended is not None
    assert log.ended.error == "usage"
    assert done.stderr == b""


# What the program gets, and what it does not get at


def test_the_program_cannot_write_records() -> None:
    attempts = "; ".join(
        f"(printf '%s\\n' '{FORGED.decode()}' >{target}) 2>/dev/null && echo {target}"
        for target in ("/proc/1/fd/1", "/proc/1/task/1/fd/1", "/proc/1/mem", "/proc/$PPID/fd/1")
    )
    code, log = shell(f"{attempts}; ls /proc/1/fd 2>/dev/null; cat /proc/1/environ 2>/dev/null; exit 9", first=True)

    assert (code, log.out, log.unexpected) == (9, b"", b"")


def test_a_signal_to_the_first_process_ends_only_the_program() -> None:
    code, log = shell("kill -KILL 1; kill -STOP 1; kill -SEGV 1; kill -PIPE 1; echo still; exit 9", first=True)

    assert (code, log.out) == (9, b"still\n")


def test_the_program_gets_three_descriptors(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as secret:
        high = fcntl.fcntl(secret.fileno(), fcntl.F_DUPFD, 77)  # a free descriptor; 77 may be in use
        try:
            _, log = launch("/bin/ls", "-l", "/proc/self/fd", pass_fds=(high, secret.fileno()))
        finally:
            os.close(high)

    assert b"secret" not in log.out
    assert [line.split()[8] for line in log.out.splitlines()[1:-1]] == [
        b"0",
        b"1",
        b"2",
    ]  # the last one belongs to the listing


def test_closed_descriptors_do_not_let_the_program_at_the_log() -> None:
    inner = f"exec {launcher()} -- /bin/sh -c 'echo out; echo err >&2; cat' <&- 2>&-"
    done = subprocess.run(["/bin/sh", "-c", inner], stdout=subprocess.PIPE, timeout=SECONDS)

    log = Log.of(done.stdout)
    assert (done.returncode, log.out, log.err, log.unexpected) == (0, b"out\n", b"err\n", b"")


def test_what_is_ignored_and_blocked_outside_is_not_inside() -> None:
    def refuse() -> None:
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        # The C library reserves signal 32; a program that uses the kernel directly may ignore it.
        ignored = (ctypes.c_ulong * 4)(1, 0, 0, 0)
        assert ctypes.CDLL(None).syscall(RT_SIGACTION[platform.machine()], 32, ignored, None, 8) == 0
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])

    code, log = launch(
        "/bin/grep", "-E", "^(SigBlk|SigIgn)", "/proc/self/status", preexec_fn=refuse, restore_signals=False
    )

    assert code == 0
    assert [line.split()[1].strip(b"0") for line in log.out.splitlines()] == [b"", b""]


def test_the_program_gains_no_privileges() -> None:
    assert b"NoNewPrivs:\t1" in launch("/bin/cat", "/proc/self/status")[1].out


def test_without_a_log_nothing_runs(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    done = subprocess.run(["/bin/sh", "-c", f"exec {launcher()} -- touch {ran} >&-"], timeout=SECONDS)

    assert done.returncode == 128 + signal.SIGKILL
    assert not ran.exists()


def test_a_closed_log_ends_the_program() -> None:
    mark = uuid.uuid4().hex
    command = first_process(launcher(), "--", "/bin/sh", "-c", f"setsid yes {mark} & yes {mark}")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"o {mark}\n".encode()
        process.stdout.close()

        assert process.wait(SECONDS) == 128 + signal.SIGKILL
    assert not runs(mark)


# Whether it can connect


def test_it_says_whether_it_can_connect_to_the_api_server() -> None:
    def connects(host: str, port: object) -> int:
        given = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}
        return subprocess.run([launcher(), "-p"], env=given, timeout=SECONDS).returncode

    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as server:
            try:
                server.bind((host, 0))
            except OSError:
                continue  # there is no IPv6 on this machine
            server.listen()
            port = server.getsockname()[1]
            assert connects(host, port) == 0
        assert connects(host, port) == 1
    for host, wrong in (("localhost", 443), ("127.0.0.1", ""), ("127.0.0.1", 65536), ("", 443)):
        assert connects(host, wrong) == 2
    assert subprocess.run([launcher(), "-p"], env={}, timeout=SECONDS).returncode == 2


@pytest.mark.parametrize("argv", [["-p"], ["-C", "/", "--", "/bin/echo", "began"]])
def test_it_waits_until_it_cannot_connect(argv: list[str]) -> None:
    """Some network plugins apply rules for a pod a moment after it has started."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(SECONDS)
        given = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.getsockname()[1])}
        waits = subprocess.Popen([launcher(), "-w", str(SECONDS), *argv], env=given, stdout=subprocess.PIPE)
        for _ in range(3):
            server.accept()[0].close()
        assert waits.poll() is None
    said, _ = waits.communicate(timeout=SECONDS)
    assert (waits.returncode, b"o began\n" in said) == ((1, False) if argv == ["-p"] else (0, True))


def test_what_is_to_have_no_network_does_not_start_where_it_has_one() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        given = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.getsockname()[1])}
        told = subprocess.run(
            [launcher(), "-w", "1", "-C", "/", "--", "/bin/echo", "began"],
            env=given,
            capture_output=True,
            timeout=SECONDS,
        )
        assert subprocess.run([launcher(), "-w", "1", "-p"], env=given, timeout=SECONDS).returncode == 0
    assert told.returncode == 126
    assert b'"error":"network"' in told.stdout
    assert b"began" not in told.stdout


def test_the_beginning_of_files_is_reported_once_all_is_dead(tmp_path: Path) -> None:
    for name, content in (("small", b"hi\n"), ("large", b"x" * 5000), ("empty", b""), ("other", b"\xff" * 4)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path / "small")
    os.mkfifo(tmp_path / "pipe")
    names = ["small", "large", "missing", "link", "pipe", "empty", "other", "."]
    options = [option for name in names for option in ("-r", str(tmp_path / name))]
    script = f"(sleep 0.2; echo late > {tmp_path}/small) & echo now > {tmp_path}/small"
    code, said = launch("/bin/sh", "-c", script, options=options)
    assert code == 0
    assert said.results == {0: b"now\n", 1: b"x" * 4097, 5: b"", 6: b"\xff" * 4}


def test_more_files_than_a_task_may_have_are_refused() -> None:
    code, said = launch("/bin/true", options=["-r", "/x"] * 33)
    assert (code, said.ended and said.ended.error) == (126, "usage")
