"""Volumes and artifacts: which files a task may have and leave, and under which terms. Pure.

Paths of the host are judged as they are written, which is why there is only one way to write one. Where one really
leads is seen when it is opened, beneath the root of the rule that allowed it (`host_path_terms`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from remit.api.commandpolicy import WorkspaceRule
from remit.api.quantity import parse_bytes
from remit.api.volumes import Access, Artifact, Volume, WorkspaceVolume
from remit.errors import InvalidInput
from remit.policy import needs
from remit.policy.argv import refused_character, takes_a_detour
from remit.policy.compile import CompiledPolicy
from remit.policy.filerules import CompiledHostPathRule
from remit.policy.hostpaths import FORBIDDEN
from remit.policy.rate import RateClaim
from remit.policy.request import PolicyRequest
from remit.policy.verdict import Denial, Reason
from remit.sandboxpaths import WORKSPACE

DEFAULT_ARTIFACT_BYTES: Final = parse_bytes("100Mi")
DEFAULT_WORKSPACE_BYTES: Final = parse_bytes("1Gi")


@dataclass(frozen=True)
class HostPathTerms:
    """`root`: the folder that no link may lead out of. `run_as_user`: the uid that policies ask for, if any."""

    root: str
    run_as_user: int | None


def unacceptable_volumes(request: PolicyRequest) -> str | None:
    """None, or what is refused whatever policies say."""
    for index, volume in enumerate(request.volumes):
        where = f"spec.volumes[{index}]"
        if volume.host_path and (wrong := _unacceptable_host_path(volume.host_path.path)):
            return f"{where}.hostPath.path: {wrong}"
        if volume.release and (volume.release.deployment is None or volume.release.revision is None):
            return f"{where}.release: only a hook of a Deployment may leave deployment and revision out; say both"
    texts = {f"volumeMounts[{index}].mountPath": mount.mount_path for index, mount in enumerate(request.mounts)}
    texts |= {f"volumeMounts[{index}].subPath": mount.sub_path or "" for index, mount in enumerate(request.mounts)}
    texts |= {"stdinFrom.volume.path": request.stdin_file.path or ""} if request.stdin_file else {}
    texts |= request.kept_paths
    for where, text in texts.items():
        if refused := refused_character(text):
            return f"spec.{where} has {refused[1]} in column {refused[0]}"
    places = [WORKSPACE, *(mount.mount_path for mount in request.mounts)]
    for where, path in request.kept_paths.items():
        if takes_a_detour(path):
            return f"spec.{where}: {path!r} takes a detour; write it without '..', '.', '//' or a final '/'"
        inside = path_inside(path, request.working_dir)
        if not any(inside == place or inside.startswith(f"{place}/") for place in places):
            return f"spec.{where}: {inside} is neither in {WORKSPACE} nor in a mounted folder, so nothing of it is kept"
    return None


def path_inside(path: str, working_dir: str) -> str:
    """The path of an artifact or a result as the program sees it."""
    return posixpath.normpath(posixpath.join(working_dir, path))


def _unacceptable_host_path(path: str) -> str | None:
    if refused := refused_character(path):
        return f"the path has {refused[1]} in column {refused[0]}"
    if takes_a_detour(path):
        return f"the path {path!r} takes a detour; write it without '..', '.', '//' or a final '/'"
    if tree := next((tree for tree in FORBIDDEN if path == tree or path.startswith(f"{tree}/")), None):
        return f"nothing in {tree} is ever mounted; copy what is needed to another folder"
    return None


def judge_volumes(policy: CompiledPolicy, request: PolicyRequest) -> Denial | None:
    """Judge the volumes and artifacts. Returns the denial of `policy`, or None."""
    for volume in request.volumes:
        accesses = {mount.access for mount in request.mounts if mount.name == volume.name}
        if not accesses or (request.stdin_file and request.stdin_file.name == volume.name):
            accesses.add("ReadOnly")
        for access in sorted(accesses):
            if denial := _judge_volume(policy, volume, access):
                return denial
    for artifact in request.artifacts:
        if denial := _judge_artifact(policy, artifact):
            return denial
    return None


def _judge_volume(policy: CompiledPolicy, volume: Volume, access: Access) -> Denial | None:
    if volume.host_path:
        return _judge_host_path(policy, volume.host_path.path, access)
    if volume.workspace:
        return _judge_workspace(policy, volume.workspace)
    if volume.release and (name := volume.release.deployment) is not None:
        return _judge_release(policy, name)
    if volume.artifact and policy.spec.volumes.artifacts is None:
        return _no_artifacts(policy, f"the artifact {volume.artifact.name} of task {volume.artifact.task}")
    if volume.empty_dir and volume.empty_dir.size_limit is not None:
        asked, most = volume.empty_dir.size_limit, policy.bounds.max.disk
        if most is not None and parse_bytes(asked) > most:
            message = (
                f"sizeLimit {asked} of volume {volume.name} is above the {most} that policy {policy.key} allows at most"
                " (spec.limits.disk.max)"
            )
            return Denial(Reason.LIMIT_EXCEEDED, message, policy.key, "limits.disk", needs.limit("disk", asked))
    return None


def _judge_host_path(policy: CompiledPolicy, path: str, access: Access) -> Denial | None:
    if any(_allowing(policy, path, access)):
        return None
    lacking = needs.host_paths(path, access)
    line = needs.flow({"paths": [path], "access": [access]})
    elsewhere = next((rule for rule in policy.host_paths if rule.matches(path)), None)
    so_far = f" ({elsewhere.name} allows {' and '.join(sorted(elsewhere.access))} there)" if elsewhere else ""
    message = (
        f"policy {policy.key} does not allow {path} of the host to be mounted {access}{so_far}; its"
        f" spec.volumes.hostPaths needs `{line}`"
    )
    return Denial(Reason.VOLUME_NOT_ALLOWED, message, policy.key, "volumes.hostPaths", lacking)


def _allowing(policy: CompiledPolicy, path: str, access: Access) -> Iterator[CompiledHostPathRule]:
    return (rule for rule in policy.host_paths if access in rule.access and rule.matches(path))


def _judge_workspace(policy: CompiledPolicy, workspace: WorkspaceVolume) -> Denial | None:
    rules = list(_naming(policy, workspace.name))
    asked = None if workspace.size is None else parse_bytes(workspace.size)
    if any(asked is None or asked <= parse_bytes(rule.max_size) for rule in rules):
        return None
    lacking = needs.workspaces(workspace.name, workspace.size)
    line = needs.flow(lacking["volumes"]["workspaces"][0])
    too_large = f" of {workspace.size}, only of {' or '.join(str(rule.max_size) for rule in rules)}" if rules else ""
    message = (
        f"policy {policy.key} does not allow the workspace {workspace.name}{too_large}; its spec.volumes.workspaces"
        f" needs `{line}`"
    )
    return Denial(Reason.VOLUME_NOT_ALLOWED, message, policy.key, "volumes.workspaces", lacking)


def _judge_release(policy: CompiledPolicy, deployment: str) -> Denial | None:
    if policy.released is not None and policy.released.matches(deployment):
        return None
    lacking = needs.releases(deployment)
    message = (
        f"policy {policy.key} does not allow what Deployment {deployment} releases to be mounted; its spec needs"
        f" `{needs.line(lacking)}`"
    )
    return Denial(Reason.VOLUME_NOT_ALLOWED, message, policy.key, "volumes.releases", lacking)


def _naming(policy: CompiledPolicy, name: str) -> Iterator[WorkspaceRule]:
    rules = zip(policy.spec.volumes.workspaces, policy.workspaces, strict=True)
    return (rule for rule, names in rules if names is not None and names.matches(name))


def _judge_artifact(policy: CompiledPolicy, artifact: Artifact) -> Denial | None:
    rule = policy.spec.volumes.artifacts
    if rule is None:
        return _no_artifacts(policy, f"the artifact {artifact.name}")
    most = artifact.max_bytes
    asked = {"maxBytes": most} if most is not None and parse_bytes(most) > parse_bytes(rule.max_bytes) else {}
    seconds = artifact.retain_seconds or 0
    kept = {"maxRetainSeconds": seconds} if seconds > rule.max_retain_seconds else {}
    if not asked and not kept:
        return None
    line = needs.line(needs.artifacts(**{**rule.model_dump(by_alias=True), **asked, **kept}))
    message = (
        f"policy {policy.key} allows artifacts of {rule.max_bytes}, kept for {rule.max_retain_seconds} seconds after"
        f" their task; artifact {artifact.name} asks for more: the policy's spec would need `{line}`"
    )
    lacking = needs.artifacts(**asked, **kept)
    return Denial(Reason.ARTIFACT_NOT_ALLOWED, message, policy.key, "volumes.artifacts", lacking)


def _no_artifacts(policy: CompiledPolicy, what: str) -> Denial:
    lacking = needs.artifacts()
    message = f"policy {policy.key} does not allow {what}; its spec needs `{needs.line(lacking)}`"
    return Denial(Reason.ARTIFACT_NOT_ALLOWED, message, policy.key, "volumes.artifacts", lacking)


def host_path_terms(policies: Sequence[CompiledPolicy], path: str, access: Access) -> HostPathTerms:
    """Under which terms `policies`, the one that allowed and the ceilings, have `path` mounted.

    Every policy that has a rule for it is held to: the root is the deepest of theirs. That of a rule such as `/a/**` is
    `/a`, whose rest it allows, too, wherever in that a link leads. With other wildcards, and without any rule, as where
    policies only audit, it is the path itself: a link could lead to what no rule allows.

    Raises `InvalidInput` where they want different users.
    """
    rules = [rule for policy in policies if (rule := next(_allowing(policy, path, access), None))]
    users = {rule.run_as_user for rule in rules if rule.run_as_user is not None}
    if len(users) > 1:
        names = ", ".join(rule.name for rule in rules if rule.run_as_user is not None)
        raise InvalidInput(f"{path} is to be mounted for different users by {names}; let policies agree on runAsUser")
    roots = (_root(rule, path) for rule in rules)
    return HostPathTerms(max(roots, key=len, default=path), next(iter(users), None))


def _root(rule: CompiledHostPathRule, path: str) -> str:
    matching = (glob for glob, pattern in rule.globs if pattern.matches(path))
    folders = (glob.removesuffix("/**") or "/" for glob in matching if glob.endswith("/**"))
    return max((folder for folder in folders if not {"*", "?"} & {*folder}), key=len, default=path)


def artifact_bytes(policies: Sequence[CompiledPolicy], artifact: Artifact) -> int:
    """The most that is kept: what is asked for, else the least of what each policy allows at most."""
    if artifact.max_bytes is not None:
        return parse_bytes(artifact.max_bytes)
    rules = [rule for policy in policies if (rule := policy.spec.volumes.artifacts) is not None]
    return min((parse_bytes(rule.max_bytes) for rule in rules), default=DEFAULT_ARTIFACT_BYTES)


def workspace_claims(request: PolicyRequest) -> tuple[RateClaim, ...]:
    """The workspaces that the task must have to itself: those that it writes to."""
    writable = {mount.name for mount in request.mounts if mount.access == "ReadWrite"}
    names = {volume.workspace.name for volume in request.volumes if volume.workspace and volume.name in writable}
    return tuple(RateClaim.of_workspace(request.namespace, name) for name in sorted(names))


def workspace_bytes(policies: Sequence[CompiledPolicy], workspace: WorkspaceVolume) -> int:
    """How large it may become: what is asked for, else the least of what each policy allows at most."""
    if workspace.size is not None:
        return parse_bytes(workspace.size)
    most = [
        max(parse_bytes(rule.max_size) for rule in rules)
        for policy in policies
        if (rules := list(_naming(policy, workspace.name)))
    ]
    return min(most, default=DEFAULT_WORKSPACE_BYTES)
