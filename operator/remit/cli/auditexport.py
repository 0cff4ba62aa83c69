"""Writes what `remit audit export` selected: to standard output, or into a file that is whole or not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from remit.cli.terminal import harmless
from remit.describe.audittrail import COLUMNS, Selection, as_csv
from remit.errors import InvalidInput
from remit.privatefiles import whole_file
from remit.telemetry.segments import belongs


def write(selection: Selection, output: Path | None, *, csv: bool) -> None:
    """Raises `InvalidInput` when `output` is no place for it, such as one of the trail's own files, and `OSError`."""
    if output is None:
        on_terminal = sys.stdout.isatty()
        for line in _lines(selection, csv):
            sys.stdout.buffer.write(harmless(line.decode(errors="replace")).encode() if on_terminal else line)
        sys.stdout.buffer.flush()
        return
    if belongs(selection.path, output):
        raise InvalidInput(f"{output} is where the trail itself stands; give --output another name")
    if output.is_dir():
        raise InvalidInput(f"{output} is a folder; give --output the name of a file")
    if not output.parent.is_dir():
        raise InvalidInput(f"{output.parent} is not there; make it, or give --output another name")
    with whole_file(output) as file:
        file.writelines(_lines(selection, csv))


def _lines(selection: Selection, csv: bool) -> Iterator[bytes]:
    if csv:
        yield as_csv(COLUMNS).encode()
    for line, record in selection:
        yield as_csv(record.get(column) for column in COLUMNS).encode() if csv else line
