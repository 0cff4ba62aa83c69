"""The report of a release: timings, the switch, what a probe saw of it, and what both sides used."""

from remit.release.report.compose import brief, compose, is_another, owed, reported, sentence
from remit.release.report.markdown import markdown
from remit.release.report.model import (
    Evidence,
    Measured,
    Probed,
    Proxied,
    Report,
    Sample,
    Second,
    StageTime,
    Subject,
    Switching,
    Usage,
)
from remit.release.report.page import page

__all__ = [
    "Evidence",
    "Measured",
    "Probed",
    "Proxied",
    "Report",
    "Sample",
    "Second",
    "StageTime",
    "Subject",
    "Switching",
    "Usage",
    "brief",
    "compose",
    "is_another",
    "markdown",
    "owed",
    "page",
    "reported",
    "sentence",
]
