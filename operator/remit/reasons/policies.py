"""The codes of policies. Pure."""

from __future__ import annotations

from typing import Final

from remit.reasons.code import NO, WAITS, Category, Code

_RULE: Final = "The message says what a policy would need; `remit policy suggest` prints a policy that has it."


def _denied(name: str, meaning: str, remedy: str = _RULE) -> Code:
    return Code(name, Category.DENIED, meaning, NO, remedy)


CODES: Final = (
    Code("Allowed", Category.NONE, "A rule allows it.", "", ""),
    Code("Audited", Category.NONE, "Only policies in Audit enforcement select it, so it runs.", "",
        "Add the rule that `would be denied by` names before you enforce the policy."),
    Code("Compiled", Category.NONE, "The policy is in force.", "", ""),
    Code("CeilingWithSelector", Category.NONE, "A ceiling has a selector, so a task with other labels evades it.", "",
        "Select namespaces by `namespaceSelector` instead; nobody can choose that for a task."),
    Code("NoCeiling", Category.NONE, "A policy in the operator's namespace is not the ceiling that it looks like.", "",
        "Do what the message says of the field."),
    Code("BackendsNotOffered", Category.NONE,
        "The policy lists only backends that this operator does not offer, so it denies all commands and scripts.", "",
        "Add a backend to `backends` that the message names, or leave `backends` out."),
    _denied("NoPolicy", "No policy of the namespace selects the task.",
        "Create a CommandPolicy there (`remit policy suggest` prints one), or give the task a label that one selects."),
    _denied("PolicyNotReady", "A policy that selects the task has a mistake in it, so nobody knows what it forbids.",
        "Correct the policy: `kubectl describe commandpolicies.remit.dev` names the field and the column."),
    _denied("TooCostly", "Matching would take too long for such a long command and such patterns.",
        "Shorten the command or the SQL, or write simpler patterns."),
    _denied("DeniedByRule", "A `deny` rule matches.",
        "Ask whoever owns the policy to change the rule that the message names; no `allow` rule outweighs it."),
    _denied("NotAllowed", "Policies select the task, but no `allow` rule matches."),
    _denied("OperationNotAllowed", "No policy has rules for this kind of operation."),
    _denied("BackendNotAllowed", "A rule matches, but the policy does not allow this backend."),
    _denied("NetworkNotAllowed", "A rule matches, but the policy does not allow this kind of network."),
    _denied("ImageNotAllowed", "A rule matches, but the policy does not allow this image."),
    _denied("EnvironmentNotAllowed", "The task sets a variable that `environment.allow` does not list."),
    _denied("PrivateFileNotAllowed", "The task puts a private file where a program may look for its configuration."),
    _denied("VolumeNotAllowed", "The policy does not allow a path of the host with that access, or such a workspace."),
    _denied("ArtifactNotAllowed", "The policy does not allow such an artifact."),
    _denied("RawOutputNotAllowed", "The task asks for raw output, and `output.allowRaw` is not set."),
    _denied("PodNotAllowed", "`spec.pod` asks for something that no entry of `pods` allows."),
    _denied("WorkingDirNotAllowed",
        "`workingDir` is neither in the task's private workspace nor in a mounted folder, or the "
        "operation starts no program.",
        "Name a folder that the task mounts, or leave `workingDir` out."),
    _denied("LimitExceeded", "The task asks for more than `limits` allows.",
        "Ask for less, or raise the limit in the policy; the message names both."),
    _denied("CeilingExceeded", "The namespace's policy allows it, but a ceiling does not.",
        "Ask whoever runs the operator to extend the ceiling; the message names it and what it lacks."),
    _denied("InvalidCommand",
        "The command has a character that is always refused, or is too long, or its path is ambiguous.",
        "Leave the character out, or write the path in full; no policy can allow it. Put long texts into a private "
        "file."),
    _denied("Denied",
        "What an operation found on its way is not allowed, such as a redirect or a path below a folder."),
    _denied("PolicyDenied", "No policy allows it, or one denies it."),
    _denied("SecurityError", "A rule that no policy can change does not let it run.", "Do what the message says."),
    Code("InvalidRequest", Category.DENIED,
        "A URL that programs read differently, a header that makes it another request, or a request by hand with a "
        "mistake in it.", NO, "Write it in the form that the message has; no policy can allow it."),
    Code("Invalid", Category.INVALID, "What is written cannot be right, or the CRDs are those of another version.",
        WAITS,
        "Correct the field that the message names; in place of a task that has ended, create another one."),
)  # fmt: skip
