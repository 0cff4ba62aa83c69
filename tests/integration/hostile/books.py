"""All cases, by what they are about."""

from __future__ import annotations

from collections.abc import Sequence

from . import programs_bombs, programs_kernel, programs_survivors, programs_thefts
from .case import Case, Program

PROGRAMS: dict[str, list[Program]] = {
    "Using the host up": programs_bombs.CASES,
    "Outliving the attempt": programs_survivors.CASES,
    "Taking what is not theirs": programs_thefts.CASES,
    "Asking the kernel": programs_kernel.CASES,
}
BOOKS: dict[str, Sequence[Case]] = {**PROGRAMS}
