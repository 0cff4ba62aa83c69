"""Containers: the action, the image, the options, what is executed, and whose container it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from remit.api.containers import ContainerOptions
from remit.api.operations import ContainerOperation
from remit.policy import needs
from remit.policy.argv import refused_character, takes_a_detour
from remit.policy.compile import CompiledPolicy
from remit.policy.match import Command
from remit.policy.request import PolicyRequest
from remit.policy.rules import commands, releases
from remit.policy.rules.files import unacceptable_path
from remit.policy.verdict import Denial, Reason

_WORKING_DIR: Final = "spec.container.workingDir"
_DESCRIPTORS: Final = ("/proc", "/dev/fd")


def judge(policy: CompiledPolicy, request: PolicyRequest) -> str | Denial:
    """The rules that allow it, or why none does."""
    container, rules = request.subject, policy.spec.containers
    assert isinstance(container, ContainerOperation)  # noqa: S101  # by its operation
    if container.action not in rules.operations:
        listed = ", ".join(rules.operations) or "none"
        return Denial(
            Reason.OPERATION_NOT_ALLOWED,
            f"policy {policy.key} does not allow containers to be subject to {container.action};"
            f" spec.containers.operations has {listed}",
            policy.key,
            needs=needs.container(container.action, [], []),
        )
    denial = _whose(policy, request, container) or _image(policy, container) or releases.judge(policy, request.place)
    denial = denial or _options(policy, container.options or ContainerOptions()) or _working_dir(policy, container)
    if denial:
        return denial
    allowing = f"containers.operations[{rules.operations.index(container.action)}]"
    if not container.argv:
        return allowing
    executing = commands.judge(policy, replace(request, command=Command(tuple(container.argv))))
    return executing if isinstance(executing, Denial) else f"{allowing} and {executing}"


def describe(request: PolicyRequest) -> str:
    container = request.subject
    assert isinstance(container, ContainerOperation)  # noqa: S101  # by its operation
    place = f" in {container.working_dir}" if container.working_dir else ""
    return f"the container operation {container.action} {container.name or container.image or ''}".rstrip() + place


def unacceptable(request: PolicyRequest) -> str | None:
    """Why no policy is asked about it: its folder is not written in its one normal form, or is no folder of the
    container's files."""
    container = request.subject
    assert isinstance(container, ContainerOperation)  # noqa: S101  # by its operation
    folder = container.working_dir
    if folder is None:
        return None
    if wrong := unacceptable_path(folder):
        return f"{_WORKING_DIR}: {wrong}"
    # Container runtimes have leaked descriptors of folders of the host, through which a program would start outside the
    # container.
    if any(f"{folder}/".startswith(f"{place}/") for place in _DESCRIPTORS):
        return f"{_WORKING_DIR}: {folder} leads to folders that a process has open; name a folder of the container"
    return None


def _whose(policy: CompiledPolicy, request: PolicyRequest, container: ContainerOperation) -> Denial | None:
    name = container.name or ""
    if not request.foreign or any(pattern.matches(name) for pattern in policy.container_others):
        return None
    listed = ", ".join(policy.spec.containers.others) or "no entry"
    return Denial(
        Reason.NOT_ALLOWED,
        f"container {name} was not made by a container operation in namespace {request.namespace}; policy {policy.key}"
        f" would have to name it in spec.containers.others, which has {listed}",
        policy.key,
        "containers.others",
    )


def _image(policy: CompiledPolicy, container: ContainerOperation) -> Denial | None:
    image = container.image
    if image is None or any(pattern.matches(image) for pattern in policy.images):
        return None
    return Denial(
        Reason.IMAGE_NOT_ALLOWED,
        f"no image that policy {policy.key} allows matches {image}; spec.images.allow has"
        f" {', '.join(policy.spec.images.allow) or 'no entry'}",
        policy.key,
        "images.allow",
        needs.images(image),
    )


def _options(policy: CompiledPolicy, options: ContainerOptions) -> Denial | None:
    rules = policy.spec.containers
    if options.network == "host":
        message = "spec.container.options.network: the host's own network is asked for with hostNetwork"
        return Denial(Reason.NOT_ALLOWED, message, policy.key, "containers.options")
    for option in options.named():
        if option not in rules.options:
            message = (
                f"policy {policy.key} does not allow spec.container.options.{option}; spec.containers.options has"
                f" {', '.join(rules.options) or 'no entry'}"
            )
            lacking = needs.container("run", [option], [])
            return Denial(Reason.NOT_ALLOWED, message, policy.key, "containers.options", lacking)
    for index, mount in enumerate(options.mounts):
        where, path = f"spec.container.options.mounts[{index}].source", mount.source
        if refused := refused_character(path):
            message = f"{where} has {refused[1]} in column {refused[0]}"
            return Denial(Reason.NOT_ALLOWED, message, policy.key, "containers.mounts")
        if takes_a_detour(path):
            message = f"{where}: {path!r} takes a detour; write it without '..', '.', '//' or a final '/'"
            return Denial(Reason.NOT_ALLOWED, message, policy.key, "containers.mounts")
        if not any(pattern.matches(path) for pattern in policy.container_mounts):
            message = (
                f"policy {policy.key} does not allow {path} of the host to be mounted ({where});"
                f" spec.containers.mounts has {', '.join(rules.mounts) or 'no entry'}"
            )
            lacking = needs.container("run", [], [path])
            return Denial(Reason.NOT_ALLOWED, message, policy.key, "containers.mounts", lacking)
    return None


def _working_dir(policy: CompiledPolicy, container: ContainerOperation) -> Denial | None:
    folder, listed = container.working_dir, policy.spec.containers.working_dirs
    if folder is None or any(pattern.matches(folder) for pattern in policy.container_folders):
        return None
    lacking = needs.working_dir(folder)
    line = needs.line(needs.working_dirs([*listed, folder]))
    remedy = f"its spec needs `{line}`" if lacking else "with '*' or '?' in its name, no rule can be about it alone"
    message = (
        f"policy {policy.key} does not allow a program to start in {folder} of a container ({_WORKING_DIR}); {remedy}"
    )
    return Denial(Reason.NOT_ALLOWED, message, policy.key, "containers.workingDirs", lacking)
