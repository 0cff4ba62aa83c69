"""The description of one code. Pure, and light: supervisors of processes import it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Category(StrEnum):
    """The kind of a failure: a closed set, with the same words in status, metrics, the audit trail and Python."""

    DENIED = "Denied"
    INVALID = "Invalid"
    SANDBOX = "Sandbox"
    EXIT_CODE = "ExitCode"
    TIMEOUT = "Timeout"
    DEADLINE = "Deadline"
    RESOURCES = "Resources"
    INTERRUPTED = "Interrupted"
    CANCELLED = "Cancelled"
    ARTIFACTS = "Artifacts"
    OPERATION = "Operation"
    INFRASTRUCTURE = "Infrastructure"
    RELEASE = "Release"
    NONE = "None"


CATEGORIES: Final = {
    Category.DENIED: "Policy, or a rule that no policy can change, does not allow it.",
    Category.INVALID: "What was written cannot be right, or this installation cannot do it.",
    Category.SANDBOX: "The host cannot give a confinement that is required.",
    Category.EXIT_CODE: "The program ran and reported a failure, or a signal ended it.",
    Category.TIMEOUT: "One attempt took longer than it may.",
    Category.DEADLINE: "The whole task, or the release, took longer than it may.",
    Category.RESOURCES: "It met a limit, or asks for more than there is.",
    Category.INTERRUPTED: "What it ran in was taken away, not by its own doing.",
    Category.CANCELLED: "Somebody asked for its end.",
    Category.ARTIFACTS: "It completed, but what it was to leave cannot be kept.",
    Category.OPERATION: "The file, server or engine that it works on refused or answered otherwise than expected.",
    Category.INFRASTRUCTURE: "A server, an engine, the cluster or Remit itself failed, not the work.",
    Category.RELEASE: "The new revision, or its release, failed.",
    Category.NONE: "No failure: says where something stands, or that it went well.",
}


@dataclass(frozen=True, slots=True)
class Code:
    """One stable CamelCase word, as users meet it in status, Events, the audit trail, metrics and exceptions."""

    name: str
    category: Category
    meaning: str
    retried: str
    """Whether and when Remit tries again by itself; empty for what is no failure."""
    remedy: str
    """What to do about it; empty where nothing is to be done."""


NO: Final = "no"
YES: Final = "yes, up to `retry.maxRetries` times"
WAITS: Final = "waits until that has changed"
DEADLINE: Final = "yes, until the release's deadline (`progressDeadlineSeconds`)"
