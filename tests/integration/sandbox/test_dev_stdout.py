"""Tests that a program may open its own streams by name: /dev/stdout is the pipe that it was given."""

from __future__ import annotations

SOURCE = """
for name, text in (('/dev/stdout', 'out'), ('/dev/stderr', 'err'), ('/proc/self/fd/1', 'again')):
    with open(name, 'w') as stream: stream.write(text)
print(open('/dev/stdin').read(), end='')
"""


async def test_standard_streams_open_by_name(run):
    outcome, kept = await run.python(SOURCE, stdin=b"in")
    assert (outcome.exit_code, kept.stderr) == (0, b"err"), kept.stderr
    assert kept.stdout == b"outagainin"


async def test_standard_input_opens_without_one(run):
    outcome, kept = await run.python("print(repr(open('/dev/stdin').read()))")
    assert (outcome.exit_code, kept.stdout) == (0, b"''\n"), kept.stderr
