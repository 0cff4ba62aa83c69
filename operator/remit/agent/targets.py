"""The targets that an agent is given: Deployments whose artifact is filled in when something is deployed. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from remit.api.commandpolicy import CommandPolicy
from remit.api.deployment import Deployment, DeploymentSpec
from remit.api.manifest import documents
from remit.errors import InvalidInput

TargetManifest = Deployment | Mapping[str, Any] | str | Path
"""A Deployment, or its spec: a dict, YAML text, or a file's path. In the fields of `artifact`, `{artifact}` stands for
what is deployed, such as `app:v2`; `{name}` and `{version}` for its two parts."""

_ARTIFACT: Final = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?)(?:[:@](?P<version>[A-Za-z0-9][A-Za-z0-9._:-]*))?"
)
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_PLACES: Final = ("{artifact}", "{name}", "{version}")


@dataclass(frozen=True, slots=True)
class ReleaseTarget:
    """One of them. `written` is its spec as YAML has it."""

    name: str
    written: Mapping[str, Any]

    @property
    def template(self) -> Mapping[str, str]:
        """The artifact, with places for what is deployed."""
        given: Mapping[str, str] = self.written.get("artifact") or {"image": "{artifact}"}
        return given

    def spec(self, artifact: str) -> DeploymentSpec:
        """The spec of a Deployment of this target. Raises `InvalidInput`."""
        found = _ARTIFACT.fullmatch(artifact)
        if found is None or len(artifact) > 512 or ".." in artifact or "//" in artifact:
            raise InvalidInput("is a name and a version, such as app:v2", field="artifact")
        name, version = found["name"], found["version"] or found["name"]
        parts = {"{artifact}": artifact, "{name}": name, "{version}": version}
        if "/" in artifact and "path" in self.template:
            raise InvalidInput("has a slash, and this target's artifacts are folders by their names", field="artifact")
        filled = {field: _filled(text, parts) for field, text in self.template.items()}
        return self.parsed(filled)

    def policy(self) -> CommandPolicy:
        """The policy that allows this target as it is written, and nothing else."""
        spec = self.parsed(dict(self.template))
        any_part = dict.fromkeys(_PLACES, "*")
        target = spec.target
        allowed: dict[str, Any] = {"environment": {"allow": [variable.name for variable in spec.env]}}
        chosen = target.process or target.docker or target.kubernetes
        if chosen is not None and chosen.command:
            program, *arguments = chosen.command
            rule = {"executable": program, "args": [re.escape(argument) for argument in arguments]}
            allowed["commands"] = {"allow": [rule]}
        if target.process is not None:
            place = spec.artifact.path or spec.artifact.archive or ""
            path = _filled(place, any_part)
            allowed |= {"files": {"allow": [{"paths": [path], "operations": ["read"]}]}, "networks": ["host"]}
        else:
            image = spec.artifact.image or ""
            # A template that accepts any image name does not decide on an image; only a template that names the image
            # does.
            images = [] if image.startswith(("{artifact}", "{name}")) else [_filled(image, any_part)]
            allowed |= {"containers": {"operations": ["run"]}, "images": {"allow": images}}
        if target.docker is not None:
            allowed["releases"] = {"engines": [target.docker.host]}
        return CommandPolicy.parse({"metadata": {"name": f"target-{self.name}"}, "spec": allowed})

    def parsed(self, artifact: Mapping[str, str]) -> DeploymentSpec:
        """Its spec with this artifact. Raises `InvalidInput`."""
        body = {"metadata": {"name": self.name}, "spec": {**self.written, "artifact": dict(artifact)}}
        return Deployment.parse(body).spec


def release_targets(given: Mapping[str, TargetManifest]) -> dict[str, ReleaseTarget]:
    """The targets by name. Raises `InvalidInput`."""
    return {name: _target(name, manifest) for name, manifest in given.items()}


def _target(name: str, manifest: TargetManifest) -> ReleaseTarget:
    if not _NAME.fullmatch(name):
        raise InvalidInput("is a name of at most 40 lower-case letters, digits and dashes", field=f"target {name!r}")
    target = ReleaseTarget(name, _spec_of(name, manifest))
    spec = target.parsed(dict(target.template))
    if not any(place in text for text in target.template.values() for place in _PLACES):
        raise InvalidInput("says nowhere what is deployed; write {version} where it goes", field=f"{name}.artifact")
    if (spec.artifact.image is None) != (spec.target.process is not None):
        needed = "path or archive" if spec.target.process else "image"
        raise InvalidInput(f"needs {needed}", field=f"{name}.artifact")
    if spec.target.kubernetes is not None:
        raise InvalidInput("needs an API server; give it to an operator", field=f"{name}.target.kubernetes")
    docker = spec.target.docker
    refers = {
        "env": any(variable.value_from for variable in spec.env),
        "envFrom": bool(spec.env_from),
        "config": bool(spec.config),
        "secrets": bool(spec.secrets),
        "target.docker.tlsSecret": docker is not None and docker.tls_secret is not None,
    }
    for field, given in refers.items():
        if given:
            raise InvalidInput("refers to an object of an API server, and an agent has none", field=f"{name}.{field}")
    return target


def _spec_of(name: str, manifest: TargetManifest) -> Mapping[str, Any]:
    if isinstance(manifest, Deployment):
        written: Mapping[str, Any] = manifest.spec.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude_none=True
        )
    elif isinstance(manifest, Mapping):
        written = manifest
    else:
        found = documents(manifest)
        if len(found) != 1:
            raise InvalidInput(f"holds {len(found)} documents; give one Deployment", field=f"target {name}")
        written = found[0]
    spec = written.get("spec", written)
    artifact = spec.get("artifact", {}) if isinstance(spec, Mapping) else None
    if not isinstance(artifact, Mapping) or not all(isinstance(text, str) for text in artifact.values()):
        raise InvalidInput("must be an object; its artifact, too, of texts", field=f"target {name}")
    result: Mapping[str, Any] = spec
    return result


def _filled(text: str, parts: Mapping[str, str]) -> str:
    """Each place once: what is put in is not looked at again."""
    return re.sub("|".join(map(re.escape, parts)), lambda place: parts[place[0]], text)
