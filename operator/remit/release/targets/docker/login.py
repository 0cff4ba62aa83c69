"""Who a registry is asked as: what a Deployment's pull secrets say of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import orjson
from docker.auth import AuthConfig, resolve_repository_name
from docker.errors import DockerException

from remit.api.deployment import Artifact
from remit.errors import DeploymentError

_KEY = ".dockerconfigjson"


async def login(
    artifact: Artifact, secret: Callable[[str], Awaitable[Mapping[str, bytes]]]
) -> Mapping[str, str] | None:
    """The first that names the image's registry; None where none does. Raises DeploymentError for one that says
    nothing, and what `secret` raises."""
    for name in artifact.pull_secrets or ():
        data = await secret(name)
        try:
            registry, _ = resolve_repository_name(str(artifact.image))
            entries = orjson.loads(data[_KEY])["auths"]
            found = AuthConfig({"auths": AuthConfig.parse_auth(entries)}).resolve_authconfig(registry)
        except (KeyError, TypeError, ValueError, AttributeError, DockerException):
            message = f"artifact.pullSecrets: the Secret {name} has no {_KEY} with auths of registries"
            raise DeploymentError(message, reason="InvalidPullSecret", retryable=True) from None
        if found:
            return {key: str(found[key]) for key in ("username", "password") if found.get(key)}
    return None
