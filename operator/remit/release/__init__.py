"""How a revision goes live, and how it comes back. The decisions are pure; targets do the work."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.release.model import (
        Desired,
        HookKey,
        HookView,
        InstanceView,
        MalformedRequest,
        ObservedState,
        ReleaseRequest,
        Revision,
        SlotView,
        Snapshot,
        SourceVersion,
        SpecProblem,
        StepError,
        hook_uids,
        may_contact,
        other,
    )
    from remit.release.pipeline import next_step
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
        step_error,
    )
    from remit.release.target import Material, Target
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = [
    "Decision",
    "Desired",
    "Drain",
    "Finish",
    "HookKey",
    "HookView",
    "InstanceView",
    "MalformedRequest",
    "Material",
    "ObservedState",
    "Prepare",
    "Preview",
    "Provision",
    "ReleaseRequest",
    "Retire",
    "Revision",
    "RunHook",
    "Scale",
    "SlotView",
    "Snapshot",
    "SourceVersion",
    "SpecProblem",
    "Step",
    "StepError",
    "Switch",
    "Target",
    "Wait",
    "hook_uids",
    "may_contact",
    "next_step",
    "other",
    "status_after",
    "step_error",
]
