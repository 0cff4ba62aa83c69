"""Floor 4: how a revision goes live, and how it comes back. The decisions are pure; targets do the work."""

from remit.release.memory import Answer, Failure, Live, Memory, Record, Release, StageRecord
from remit.release.model import (
    Desired,
    HookKey,
    HookView,
    Problem,
    Request,
    Revision,
    SlotView,
    Snapshot,
    SourceVersion,
    StepError,
    World,
    other,
)
from remit.release.pipeline import next_step
from remit.release.remembering import remembered
from remit.release.status import status_after
from remit.release.steps import (
    Decision,
    Drain,
    Finish,
    Prepare,
    Preview,
    Provision,
    Retire,
    RunHook,
    Scale,
    Step,
    Switch,
    Wait,
)
from remit.release.target import Material, Target

__all__ = [
    "Answer",
    "Decision",
    "Desired",
    "Drain",
    "Failure",
    "Finish",
    "HookKey",
    "HookView",
    "Live",
    "Material",
    "Memory",
    "Prepare",
    "Preview",
    "Problem",
    "Provision",
    "Record",
    "Release",
    "Request",
    "Retire",
    "Revision",
    "RunHook",
    "Scale",
    "SlotView",
    "Snapshot",
    "SourceVersion",
    "StageRecord",
    "Step",
    "StepError",
    "Switch",
    "Target",
    "Wait",
    "World",
    "next_step",
    "other",
    "remembered",
    "status_after",
]
