"""The images of a Deployment's revisions: each is at hand under a tag of ours, and none ever becomes another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import orjson

from remit.api.deployment import Artifact
from remit.backends.docker.engine import Engine, inspect_image
from remit.backends.failure import OperationFailed
from remit.errors import DeploymentError
from remit.privatefiles import write_private
from remit.release.model import Revision

_PULL_SECONDS: Final = 1800
_WAIT_SECONDS: Final = 5
"""How long a release waits for a pull before it looks at the world again: it may be aborted meanwhile."""
_UNKNOWN: Final = ("manifest unknown", "name unknown", "repository name not known")
"""How registries say that there is no such image. Some engines pass that on as a failure of their own."""

Login = Callable[[Artifact], Awaitable[Mapping[str, str] | None]]
"""The credentials for an image's registry, from the Deployment's pull secrets."""


class Images:
    """The images of one Deployment, in `repository` of the engine. `file` remembers the image of each revision."""

    def __init__(self, repository: str, file: Path, engine: Callable[[], Awaitable[Engine]], login: Login) -> None:
        self._repository, self._file, self._engine, self._login = repository, file, engine, login
        self._pulling: dict[str, asyncio.Task[str]] = {}

    async def at_hand(self) -> dict[int, str]:
        """Ids, by revision. Raises OperationFailed."""
        engine = await self._engine()
        found = await engine.call(lambda client: client.images(name=self._repository))
        tags = ((tag.rpartition(":"), image["Id"]) for image in found for tag in image["RepoTags"] or [])
        return {int(tag): id_ for (repository, _, tag), id_ in tags if repository == self._repository}

    async def fetch(self, revision: Revision) -> str:
        """The image's id, once it is at hand. Raises DeploymentError and OperationFailed."""
        if found := (await self.at_hand()).get(revision.number):
            return found
        engine, artifact = await self._engine(), revision.snapshot.spec.artifact
        name = str(artifact.image)
        id_ = None if artifact.pull_policy == "Always" else await _id(engine, name)
        if id_ is None and artifact.pull_policy == "Never":
            raise _not_found(f"the image {name} is not on the engine, and pullPolicy is Never")
        id_ = id_ or await self._pulled(engine, artifact, name)
        known = self._known()
        if known.setdefault(str(revision.number), id_) != id_:
            message = f"{name} is another image than when revision {revision.number} was made; name it by its digest"
            raise DeploymentError(message, reason="ImageChanged")
        write_private(self._file, orjson.dumps(known))
        tag = str(revision.number)
        await engine.call(lambda client: client.tag(id_, self._repository, tag))
        return id_

    async def keep(self, revisions: Iterable[int]) -> None:
        """Let go of all others. The engine keeps what is in use, or has another name. Raises OperationFailed."""
        wanted = set(revisions)
        engine = await self._engine()
        for number in (await self.at_hand()).keys() - wanted:
            await _untagged(engine, f"{self._repository}:{number}")
        known = {number: id_ for number, id_ in self._known().items() if int(number) in wanted}
        write_private(self._file, orjson.dumps(known))

    async def close(self) -> None:
        """End what is being pulled."""
        pulling, self._pulling = list(self._pulling.values()), {}
        for task in pulling:
            task.cancel()
        await asyncio.gather(*pulling, return_exceptions=True)

    async def _pulled(self, engine: Engine, artifact: Artifact, name: str) -> str:
        """Goes on in the background when it takes long; asked again, it is waited for again."""
        if name not in self._pulling:
            login = await self._login(artifact)
            self._pulling[name] = asyncio.create_task(_pull(engine, name, login), name=f"pull {name}")
        done, _ = await asyncio.wait({self._pulling[name]}, timeout=_WAIT_SECONDS)
        if not done:
            raise DeploymentError(f"the image {name} is being pulled", reason="Pulling", retryable=True)
        return await self._pulling.pop(name)

    def _known(self) -> dict[str, str]:
        try:
            found: dict[str, str] = orjson.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        return found


async def _id(engine: Engine, name: str) -> str | None:
    try:
        return str((await engine.call(lambda client: inspect_image(client, name)))["Id"])
    except OperationFailed as error:
        if error.reason == "NotFound":
            return None
        raise


async def _pull(engine: Engine, name: str, login: Mapping[str, str] | None) -> str:
    try:
        async with asyncio.timeout(_PULL_SECONDS):
            await engine.pull(name, login)
    except TimeoutError:
        message = f"the image {name} could not be pulled within {_PULL_SECONDS} s"
        raise DeploymentError(message, reason="PullFailed", retryable=True) from None
    except OperationFailed as error:
        if error.reason == "NotFound" or any(words in str(error) for words in _UNKNOWN):
            raise _not_found(str(error)) from None
        raise
    if (id_ := await _id(engine, name)) is None:
        raise DeploymentError(f"the image {name} was pulled, and is gone", reason="PullFailed", retryable=True)
    return id_


async def _untagged(engine: Engine, tag: str) -> None:
    """Remove the tag. If the image is in use, a later `keep` does it."""
    try:
        await engine.call(lambda client: client.remove_image(tag))
    except OperationFailed as error:
        if error.retryable:
            raise


def _not_found(message: str) -> DeploymentError:
    return DeploymentError(message, reason="ImageNotFound")
