"""Tests that only bubblewrap's own reports are accepted, because they determine what is killed."""

from __future__ import annotations

import os

from remit.backends.status import StatusPipe


async def test_no_second_word_names_another_process_to_kill():
    read, write = os.pipe()
    status = StatusPipe(read)
    try:
        os.write(write, b'{"child-pid": %d}\n' % os.getpid())
        status.read()
        os.write(write, b'{"child-pid": 1}\n{"exit-code": 3}\n')
        status.read()
        assert status.init is not None
        assert (status.init.pid, status.exit_code) == (os.getpid(), 3)
    finally:
        status.close()
        os.close(read)
        os.close(write)
