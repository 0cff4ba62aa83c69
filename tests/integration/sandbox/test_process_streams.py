"""Tests standard input and output of any size, without blocking and without growing memory."""

from __future__ import annotations

import asyncio
import hashlib

import psutil

MIB = 1 << 20


class Counting:
    """Keeps no output, but its size, its hash and this process's peak memory meanwhile."""

    def __init__(self) -> None:
        self.size = {"stdout": 0, "stderr": 0}
        self.hash = hashlib.blake2b()
        self.largest_chunk = 0
        self.peak = 0

    def write(self, stream: str, chunk: bytes) -> None:
        self.size[stream] += len(chunk)
        if stream == "stdout":
            self.hash.update(chunk)
        if len(chunk) > self.largest_chunk:
            self.largest_chunk = len(chunk)
        self.peak = max(self.peak, psutil.Process().memory_info().rss)


async def test_much_output_does_not_grow_memory(run):
    before = psutil.Process().memory_info().rss
    sink = Counting()
    source = (
        "import os\nb = b'x' * (1 << 20)\nfor _ in range(300):\n v = memoryview(b)\n while v: v = v[os.write(1, v):]"
    )
    outcome, _ = await run.python(source, sink=sink, timeout=100)
    assert outcome.exit_code == 0
    assert sink.size["stdout"] == 300 * MIB
    assert sink.largest_chunk > 64 * 1024
    assert sink.peak - before < 64 * MIB


async def test_both_streams_flow_together(run):
    source = "import sys\nfor _ in range(200): sys.stdout.write('o' * 10000); sys.stderr.write('e' * 10000)"
    sink = Counting()
    outcome, _ = await run.python(source, sink=sink)
    assert outcome.exit_code == 0
    assert sink.size == {"stdout": 2_000_000, "stderr": 2_000_000}


async def test_output_of_a_killed_attempt_is_kept(run):
    sink, cancel = run.sink(), asyncio.Event()
    source = "import time; print('early', flush=True); time.sleep(600)"
    running = asyncio.create_task(run.python(source, sink=sink, cancel=cancel, timeout=600, grace=0))
    async with asyncio.timeout(60):
        await sink.seen.wait()
    cancel.set()
    outcome, _ = await running
    assert outcome.exit_code is None or outcome.exit_code == 137
    assert sink.stdout == b"early\n"


async def test_output_of_any_bytes(run):
    _, out = await run.python("import sys; sys.stdout.buffer.write(bytes(range(256)))")
    assert out.stdout == bytes(range(256))


async def test_large_stdin_comes_back_whole(run):
    content = bytes(range(256)) * (32 * MIB // 256)
    sink = Counting()
    outcome, _ = await run("/usr/bin/cat", stdin=content, sink=sink)
    assert outcome.exit_code == 0
    assert sink.hash.digest() == hashlib.blake2b(content).digest()


async def test_stdin_that_is_not_read(run):
    outcome, _ = await run("/usr/bin/true", stdin=b"x" * (8 * MIB))
    assert outcome.exit_code == 0


async def test_stdin_closed_early(run):
    outcome, out = await run("/usr/bin/head", "-c", "3", stdin=b"abc" * MIB)
    assert outcome.exit_code == 0
    assert out.stdout == b"abc"


async def test_no_stdin_is_empty(run):
    outcome, out = await run("/usr/bin/cat")
    assert (outcome.exit_code, out.stdout) == (0, b"")


async def test_stdin_cannot_be_changed_by_its_reader(run):
    outcome, out = await run.python("open('/proc/self/fd/0', 'r+b', buffering=0).write(b'y')", stdin=b"x")
    assert outcome.exit_code == 1
    assert b"Operation not permitted" in out.stderr


async def test_the_environment_is_exactly_the_commands(run):
    many = {f"NAME_{n}": "v" * 100 for n in range(1000)} | {"QUOTED": "a 'b' \"c\"\n$d"}
    _, out = await run.python("import os; print(repr(sorted(os.environ.items())))", env=many)
    found = dict(eval(out.stdout))
    found.pop("PWD")
    found.pop("LC_CTYPE", None)  # set by Python itself
    assert found == many


async def test_argv_zero_is_the_name_as_written(run):
    _, out = await run("/usr/bin/cat", "/proc/self/cmdline")
    assert out.stdout == b"/usr/bin/cat\0/proc/self/cmdline\0"
