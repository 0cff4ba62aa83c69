"""`remit demo`: a tour with stock kubectl, on a machine with nothing."""

from __future__ import annotations


def demo() -> None:
    """See policies, tasks and releases at work: stock kubectl, no cluster, in less than a minute.

    Starts remit up in a temporary directory, shows each kubectl command and what it prints, checks that everything came
    out as told, and leaves nothing behind.
    """
    from remit.cli import tour

    tour.give()
