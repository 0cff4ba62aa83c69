"""All cases, by their subject."""

from __future__ import annotations

from collections.abc import Sequence

from . import (
    bodies,
    commands_starter,
    elsewhere,
    programs_bombs,
    programs_kernel,
    programs_neighbours,
    programs_survivors,
    programs_thefts,
    scenarios_names,
    scenarios_policies,
    scenarios_secrets,
    tasks_smuggling,
)
from .case import Case, Program

PROGRAMS: dict[str, list[Program]] = {
    "Using the host up": programs_bombs.CASES,
    "Outliving the attempt": programs_survivors.CASES,
    "Taking what is not theirs": programs_thefts.CASES,
    "Asking the kernel": programs_kernel.CASES,
    "Doing something to the neighbours": programs_neighbours.CASES,
}
BOOKS: dict[str, Sequence[Case]] = {
    **PROGRAMS,
    "Getting around the starter policy": commands_starter.CASES,
    "Smuggling with a task": tasks_smuggling.CASES,
    "Objects that nobody means well with": bodies.CASES,
    "Policies as a weapon": scenarios_policies.BOOK.cases,
    "Deceiving who looks": scenarios_names.BOOK.cases,
    "Letting a secret out": scenarios_secrets.BOOK.cases,
    "Leaving a folder by a file operation": elsewhere.FILES,
    "Abusing requests and statements": elsewhere.REQUESTS,
    "Getting further than the policy's hosts": elsewhere.WAY_OUT,
}
