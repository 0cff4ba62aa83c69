"""Environment variables and files from ConfigMaps and Secrets, resolved just before a run and kept nowhere."""

from __future__ import annotations

import base64
import binascii

from remit.api.base import ConfigMapKeySelector, SecretKeySelector, ValueSource
from remit.api.endpoint import Resource
from remit.api.executiontask import ExecutionTaskSpec, StdinSource
from remit.api.references import references
from remit.errors import ApiError, InvalidInput, MissingReference
from remit.execution.mounts import mounted_files
from remit.execution.resolved import Resolved
from remit.kube.client import CONFIG_MAPS, SECRETS, Kube
from remit.telemetry.encodings import MIN_LENGTH, excess, told_as


async def resolve(kube: Kube, namespace: str, spec: ExecutionTaskSpec) -> Resolved:
    """The task's `envFrom` and `env`, the latter winning, its private files, its standard input, and what its operation
    refers to.

    Raises `MissingReference`.
    """
    source = Source(kube, namespace)
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
            _put(resolved, variable.name, (variable.value or "").encode(), secret=False)
        elif (found := await source.value(variable.value_from)) is not None:
            _put(resolved, variable.name, found, secret=variable.value_from.secret_key_ref is not None)
    for file in spec.private_files:
        content = (file.value or "").encode() if file.value_from is None else await source.value(file.value_from)
        if content is not None:
            resolved.files[file.path] = content
            if file.value_from is not None and file.value_from.secret_key_ref is not None:
                _keep_secret(resolved, content, f"private file {file.path}")
    if spec.stdin_from is not None:
        resolved.stdin = await source.value(spec.stdin_from)
        if resolved.stdin and spec.stdin_from.secret_key_ref is not None:
            _keep_secret(resolved, resolved.stdin, "stdin")
    await _resolve_volumes(source, spec, resolved)
    for path, wanted in references(spec.subject):
        if (content := await source.key(wanted)) is not None:
            resolved.values[path] = content
            if isinstance(wanted, SecretKeySelector):
                _keep_secret(resolved, content, path)
    if too_much := excess(resolved.secrets):
        raise MissingReference(f"the task {too_much}")
    resolved.secret_versions = source.secret_versions
    return resolved


async def secrets_of(kube: Kube, namespace: str, spec: ExecutionTaskSpec, source: Source | None = None) -> set[str]:
    """The values of the Secrets that a task refers to, as far as they are there: to redact what is told of a task that
    does not run. Raises `MissingReference` where they are more than can be looked for. `source`: has read some before.
    """
    source, resolved = source or Source(kube, namespace), Resolved()
    for bundle in spec.env_from:
        if bundle.secret_ref is not None:
            for value in (await source.data(True, bundle.secret_ref.name, True)).values():
                _keep_secret(resolved, value, "")
    for volume in spec.volumes:
        if volume.secret is not None:
            for value in (await source.data(True, volume.secret.secret_name, True)).values():
                _keep_secret(resolved, value, "")
    for _, wanted in references(spec):
        if isinstance(wanted, SecretKeySelector):
            _keep_secret(resolved, (await source.data(True, wanted.name, True)).get(wanted.key, b""), "")
    if too_much := excess(resolved.secrets):
        raise MissingReference(f"the task {too_much}")
    return resolved.secrets


async def _resolve_volumes(source: Source, spec: ExecutionTaskSpec, resolved: Resolved) -> None:
    """The ConfigMaps and Secrets that are mounted, as files."""
    volumes = {volume.name: volume for volume in spec.volumes}
    for mount in spec.volume_mounts:
        volume = volumes[mount.name]
        if volume.secret is not None:
            data = await source.data(True, volume.secret.secret_name, volume.secret.optional)
        elif volume.config_map is not None:
            data = await source.data(False, volume.config_map.name, volume.config_map.optional)
        else:
            continue
        try:
            files = mounted_files(volume, mount, data)
        except InvalidInput as error:
            raise MissingReference(str(error)) from None
        resolved.files |= files
        if volume.secret is not None:
            for path, content in files.items():
                _keep_secret(resolved, content, f"mounted file {path}")


def _put(resolved: Resolved, name: str, value: bytes, secret: bool) -> None:
    if b"\0" in value:
        raise MissingReference(f"the value for {name} has a NUL character, which no environment variable can carry")
    try:
        resolved.env[name] = value.decode()
    except UnicodeDecodeError:
        raise MissingReference(
            f"the value for {name} is not text, which an environment variable must be; use a private file"
        ) from None
    if secret:
        _keep_secret(resolved, value, f"env {name}")


def _keep_secret(resolved: Resolved, value: bytes, where: str) -> None:
    if value.strip():
        resolved.secrets.update(told_as(value.decode(errors="surrogateescape")))
    if 0 < len(value.strip()) < MIN_LENGTH:
        resolved.exposed.append(where)


class Source:
    """Reads each object once."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube, self.namespace = kube, namespace
        self._read: dict[tuple[bool, str], dict[str, bytes] | None] = {}
        self._uids: dict[str, str] = {}
        self.secret_versions: dict[str, str] = {}
        """The uid and resourceVersion of each Secret that was read, by name."""

    async def value(self, source: ValueSource | StdinSource) -> bytes | None:
        selector = source.secret_key_ref or source.config_map_key_ref
        return await self.key(selector) if selector else None

    async def key(self, selector: SecretKeySelector | ConfigMapKeySelector) -> bytes | None:
        secret = isinstance(selector, SecretKeySelector)
        data = await self.data(secret, selector.name, selector.optional)
        if selector.key not in data and not selector.optional:
            raise MissingReference(f"{_kind(secret)} {selector.name} has no key {selector.key}")
        return data.get(selector.key)

    async def data(self, secret: bool, name: str, optional: bool) -> dict[str, bytes]:
        if (secret, name) not in self._read:
            self._read[secret, name] = await self._fetch(secret, name)
        data = self._read[secret, name]
        if data is None and not optional:
            raise MissingReference(f"{_kind(secret)} {name} is not there; create it in namespace {self.namespace}")
        return data or {}

    def secret_uid(self, name: str) -> str:
        """The uid of a Secret that was read."""
        return self._uids[name]

    async def _fetch(self, secret: bool, name: str) -> dict[str, bytes] | None:
        resource: Resource = SECRETS if secret else CONFIG_MAPS
        try:
            obj = await self.kube.get(resource, self.namespace, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        if secret:
            metadata = obj["metadata"]
            self._uids[name] = metadata["uid"]
            self.secret_versions[name] = f"{metadata['uid']}/{metadata['resourceVersion']}"
        texts: dict[str, str] = {} if secret else obj.get("data") or {}
        encoded: dict[str, str] = obj.get("data" if secret else "binaryData") or {}
        try:
            binary = {key: base64.b64decode(value, validate=True) for key, value in encoded.items()}
        except binascii.Error:
            raise MissingReference(f"{_kind(secret)} {name} holds a value that is not base64") from None
        return {key: value.encode() for key, value in texts.items()} | binary


def _kind(secret: bool) -> str:
    return "Secret" if secret else "ConfigMap"
