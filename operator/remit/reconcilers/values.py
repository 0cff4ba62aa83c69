"""Environment variables from ConfigMaps and Secrets, resolved just before a run and kept nowhere."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from remit.api import ExecutionTaskSpec
from remit.api.base import ConfigMapKeySelector, SecretKeySelector
from remit.api.references import references
from remit.errors import ApiError, RemitError
from remit.execution.resolved import Resolved
from remit.reconcilers.kube import CONFIG_MAPS, SECRETS, Kube, Resource


class MissingReference(RemitError):
    """A Secret, a ConfigMap or a key of one that a task refers to is not there (yet)."""

    retryable = True


async def resolve(kube: Kube, namespace: str, spec: ExecutionTaskSpec) -> Resolved:
    """The task's `envFrom` and `env`, the latter winning, and what its operation refers to.

    Raises `MissingReference`.
    """
    source = _Source(kube, namespace)
    resolved = Resolved()
    for bundle in spec.env_from:
        reference = bundle.secret_ref or bundle.config_map_ref
        if reference is None:
            continue
        secret = bundle.secret_ref is not None
        for key, value in (await source.data(secret, reference.name, reference.optional)).items():
            _put(resolved, bundle.prefix + key, value, secret)
    for variable in spec.env:
        if variable.value_from is None:
            _put(resolved, variable.name, variable.value or "", secret=False)
            continue
        selector = variable.value_from.secret_key_ref or variable.value_from.config_map_key_ref
        if selector is not None and (found := await source.key(selector)) is not None:
            _put(resolved, variable.name, found, secret=isinstance(selector, SecretKeySelector))
    for path, wanted in references(spec.subject):
        if (text := await source.key(wanted)) is not None:
            resolved.values[path] = text.encode()
            if isinstance(wanted, SecretKeySelector):
                resolved.secrets.update(_secrets_in(text))
    return resolved


def _secrets_in(value: str) -> Iterator[str]:
    """A secret, and the password in it where it is a URL: a driver may name that alone."""
    if value:
        yield value
    with contextlib.suppress(ValueError):
        if password := urlsplit(value).password:
            yield from {password, unquote(password)}


def _put(resolved: Resolved, name: str, value: str, secret: bool) -> None:
    if "\0" in value:
        raise MissingReference(f"the value for {name} has a NUL character, which no environment variable can carry")
    resolved.env[name] = value
    if secret and value:
        resolved.secrets.add(value)


class _Source:
    """Reads each object once."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube, self._namespace = kube, namespace
        self._read: dict[tuple[bool, str], dict[str, str] | None] = {}

    async def key(self, selector: SecretKeySelector | ConfigMapKeySelector) -> str | None:
        secret = isinstance(selector, SecretKeySelector)
        data = await self.data(secret, selector.name, selector.optional)
        if selector.key not in data and not selector.optional:
            raise MissingReference(f"{_kind(secret)} {selector.name} has no key {selector.key}")
        return data.get(selector.key)

    async def data(self, secret: bool, name: str, optional: bool) -> dict[str, str]:
        if (secret, name) not in self._read:
            self._read[secret, name] = await self._fetch(secret, name)
        data = self._read[secret, name]
        if data is None and not optional:
            raise MissingReference(f"{_kind(secret)} {name} is not there; create it in namespace {self._namespace}")
        return data or {}

    async def _fetch(self, secret: bool, name: str) -> dict[str, str] | None:
        resource: Resource = SECRETS if secret else CONFIG_MAPS
        try:
            obj = await self._kube.get(resource, self._namespace, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        data: dict[str, str] = obj.get("data") or {}
        if not secret:
            return data
        try:
            return {key: base64.b64decode(value, validate=True).decode() for key, value in data.items()}
        except (binascii.Error, UnicodeDecodeError):
            raise MissingReference(f"Secret {name} holds bytes that are not text") from None


def _kind(secret: bool) -> str:
    return "Secret" if secret else "ConfigMap"
