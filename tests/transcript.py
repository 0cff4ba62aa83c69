"""The terminal transcript of docs/demo.md, which is the output of `make demo`.

`python tests/transcript.py` runs the demo and writes its output into the page. A test compares the two, except for what
differs each time: times, durations, ids, ports, folders, and the widths of columns, which depend on these.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/demo.md"
COMMAND = "make demo"
_PLACE = re.compile(
    r"(?P<before><!-- transcript:.*?-->\n```console\n)(?P<text>.*?)(?P<after>```\n<!-- end of transcript)", re.S
)
# Coverage is measured in the demo only. Measuring the programs that it starts, which other tests measure, would add
# half of the time again.
_DEMO = """
import os, runpy
os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
runpy.run_module("remit.cli", run_name="__main__", alter_sys=True)
"""
_VARYING = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    # kubectl's own log: it sometimes warns at the end of a wait that its watch was cancelled.
    (re.compile(r'^I\d{4} .* reflector\.go:\d+\] "Warning: watch ended with error" .*\n', re.M), ""),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d(\.\d+)?\b"), "<time>"),
    (re.compile(r"(?<![\w.-])(\d+(\.\d+)? ?(ms|[smh]))+(?![\w-])"), "<duration>"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{6,}\b"), "<id>"),
    (re.compile(r"(127\.0\.0\.1|localhost|\[::1\]):\d+"), r"\1:<port>"),
    (re.compile(r"\b(published|previewPort): \d+"), r"\1: <port>"),
    (re.compile(r"\b\d+ requests"), "<count> requests"),
    (re.compile(r"(/tmp|/run/user|/root|/home)/[\w./-]+"), "<path>"),
    (re.compile(r"[─━═]{2,}|[ \t]+"), " "),
    (re.compile(r" +$", re.M), ""),
)


def normal(text: str) -> str:
    """Returns `text` with a placeholder for everything that varies from run to run."""
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text.strip()


def shown_in(page: str) -> str:
    """Returns the transcript in the page without its first line, which is the command."""
    match = _PLACE.search(page)
    if match is None:
        raise ValueError("the page has no place for the transcript")
    return match["text"].removeprefix(f"$ {COMMAND}\n")


def with_transcript(page: str, text: str) -> str:
    """Returns the page with `text` as its transcript."""
    block = f"$ {COMMAND}\n{text.strip()}\n"
    return _PLACE.sub(lambda match: match["before"] + block + match["after"], page, count=1)


def play() -> str:
    """Runs the demo as a user without a terminal does. Raises `RuntimeError` with its output if it fails."""
    done = subprocess.run(
        [sys.executable, "-c", _DEMO, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=280,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the demo ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    PAGE.write_text(with_transcript(PAGE.read_text(), play()))
