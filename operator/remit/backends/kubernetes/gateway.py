"""The egress gateway of one attempt: a Job beside the attempt's, and what its pod and its log say."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import aiohttp
import structlog

from remit.backends.base import AttemptRequest
from remit.backends.egress.gatewayrecords import GatewayRecord
from remit.backends.egress.usage import NetworkUse
from remit.backends.kubernetes.attending import remove_job
from remit.backends.kubernetes.ensuring import ensure, exists, read
from remit.backends.kubernetes.gatewaymanifests import (
    CONTAINER,
    gateway_id,
    gateway_job,
    gateway_name,
    gateway_policies,
    gateway_secret,
    gateway_url,
)
from remit.backends.kubernetes.manifests import belongs_to, job_name
from remit.backends.kubernetes.pods import Look, is_over_quota, look, refusal
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import ApiError, BackendError, RemitError
from remit.kube.client import JOBS, NETWORK_POLICIES, PODS, SECRETS, Kube, Object
from remit.kube.events import events_of
from remit.kube.informer import Informer, Subscription

log = structlog.get_logger(__name__)
IMAGE_SETTING: Final = "--remit-image of the operator"
_RETRY_SECONDS: Final = 1.0
_SHORTEST, _LONGEST = 0.1, 2.0
_SILENCE_SECONDS: Final = 30.0
"""After which a log that says nothing is asked for anew."""
_LAST_RECORD_SECONDS: Final = 10.0
_MOST_LINE_BYTES: Final = 1 << 17
_LAST_LINES: Final = "16"
"""Any record has all counts, so the last ones will do for a log that is read again."""
_NOT_FOUND: Final = 404
_FAILURES: Final = frozenset({ExitReason.EXIT_CODE, ExitReason.SIGNALED})
"""Outcomes that may be due to a gateway that was gone."""


class EgressGateway:
    """Used once: `start` it, or `resume` what another operator started; then `attend` the attempt. Who leaves the
    context before that leaves the gateway alone, for the next operator or for `beside_job`.

    `lost` gets why, once the gateway is not there any more and nobody has asked for that.
    """

    def __init__(
        self, kube: Kube, namespace: str, request: AttemptRequest, informer: Informer, image: str, architecture: str
    ) -> None:
        self._kube, self._namespace, self._request, self._informer = kube, namespace, request, informer
        self._image, self._architecture = image, architecture
        self._name = gateway_name(job_name(request.id))
        self.uid = ""
        """The uid of its Job."""
        self.use: NetworkUse | None = None
        """What went over, by the last record that was read."""
        self.waits_for = ""
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._refused: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._pod: Object = {}
        self._seen = Look()
        self._listening, self._over, self._change = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []
        self._news = contextlib.ExitStack()

    async def __aenter__(self) -> EgressGateway:
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._news.close()
        self.lost.cancel()
        self._refused.cancel()

    async def start(self) -> str | Outcome:
        """Gives the URL by which it is used, once it accepts connections; or why the cluster does not have it.

        Raises:
            ApiError: the server refuses something of it.
            BackendError: it ended before it began, or somebody else has the name of its Job.
        """
        token = secrets.token_hex(24)
        await ensure(self._kube, SECRETS, self._namespace, gateway_secret(self._request, token), new=True)
        for policy in gateway_policies(self._request):
            await ensure(self._kube, NETWORK_POLICIES, self._namespace, policy, new=True)
        self.uid = await self._create()
        self._attend()
        listening = asyncio.ensure_future(self._listening.wait())
        first: set[asyncio.Future[Any]] = {listening, self.lost, self._refused}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
        if self._refused.done():
            return self._refused.result()
        if self.lost.done():
            raise BackendError(
                f"the egress gateway of its restricted network ended before it began: {self.lost.result()}"
            )
        return gateway_url(str(self._pod["status"].get("podIP")), token)

    def resume(self, uid: str) -> None:
        """Attend the gateway whose Job is `uid`; empty: none is known, and `lost` says so."""
        self.uid = uid
        if uid:
            self._attend()
        else:
            self._lose("nobody knows which one it was")

    async def attend(self, run: Callable[[asyncio.Event], Awaitable[Outcome]], cancel: asyncio.Event) -> Outcome:
        """Have `run` run the attempt until `cancel` is set, or the event that it is given: where the gateway is lost.
        Gives how the attempt ended, and what went over its gateway, which is ended. Raises what `run` does, and leaves
        the gateway alone then."""
        stop, asked = asyncio.Event(), asyncio.ensure_future(cancel.wait())

        async def watch() -> None:
            first: set[asyncio.Future[Any]] = {asked, self.lost}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            stop.set()

        watching = asyncio.create_task(watch())
        try:
            outcome = await run(stop)
        finally:
            for task in (asked, watching):
                task.cancel()
            await asyncio.gather(asked, watching, return_exceptions=True)
        if outcome.reason in _FAILURES:
            await self._look()
        used = await self._end()
        lost = self.lost.result() if self.lost.done() else None
        return replace(concluded(outcome, lost, cancelled=cancel.is_set()), network=used)

    async def _look(self) -> None:
        """Ask whether it is still there, in case nobody has told yet."""
        selector = f"batch.kubernetes.io/controller-uid={self.uid}"
        with contextlib.suppress(RemitError):
            for pod in await self._kube.list(PODS, self._namespace, label_selector=selector):
                if belongs_to(pod, self.uid):
                    self._take(pod, gone=False)

    async def _end(self) -> NetworkUse | None:
        """Have it end. Gives what went over in all; None where that was never told. Raises nothing of the server's: its
        Job goes with the attempt's other objects."""
        self._ending = True
        try:
            await self._kube.discard(JOBS, self._namespace, self._name, uid=self.uid)
            if not self.lost.done():  # wait until its log is read to the end
                await asyncio.wait(self._tasks[-1:], timeout=_LAST_RECORD_SECONDS)
        except ApiError as error:
            log.info("an egress gateway stays for now", job=self._name, reason=str(error))
        return self.use

    def _attend(self) -> None:
        news = self._news.enter_context(self._informer.subscribe(gateway_id(self._request.id)))
        parts = (self._watch(news), self._look_after_missing_pod(), self._follow())
        self._tasks = [asyncio.create_task(part) for part in parts]

    async def _create(self) -> str:
        """Its Job, and no other one: what an operator left that did not come so far is removed. Gives the uid."""
        manifest = gateway_job(self._request, self._image, self._architecture)
        while True:
            try:
                made = await self._kube.create(JOBS, self._namespace, manifest)
                return str(made["metadata"]["uid"])
            except ApiError as error:
                if exists(error):
                    await self._remove_left()
                elif error.retryable or is_over_quota(str(error)):
                    self.waits_for = str(error)
                    await asyncio.sleep(_RETRY_SECONDS)
                else:
                    raise

    async def _remove_left(self) -> None:
        found = await read(self._kube, JOBS, self._namespace, self._name)
        if found is None:
            return
        if self._request.task is None or not belongs_to(found, self._request.task.uid):
            raise BackendError(f"{self._namespace} has a Job {self._name} that Remit did not make")
        await remove_job(self._kube, self._namespace, self._name, found["metadata"]["uid"])

    async def _watch(self, news: Subscription) -> None:
        """If the watch ends for good, the attempt's own is told so, too, once there is one."""
        try:
            while True:
                change = await news.next()
                if change is not None and belongs_to(change.object, self.uid):
                    self._take(change.object, gone=change.type == "DELETED")
        except RemitError as error:
            if not self._listening.is_set():
                self._lose(f"nobody can tell how it fares: {error}")

    def _take(self, pod: Object, *, gone: bool) -> None:
        self._pod, self._seen = pod, look(pod, CONTAINER, IMAGE_SETTING)
        self.waits_for = self._seen.waits or self.waits_for
        if self._seen.refused is not None and not self._refused.done():
            self._refused.set_result(self._seen.refused)
        if gone or self._is_over:
            self._lose(_why(pod, self._seen))
        change, self._change = self._change, asyncio.Event()
        change.set()

    @property
    def _is_over(self) -> bool:
        return self._seen.over or self._seen.terminated is not None

    def _lose(self, why: str) -> None:
        if not (self._ending or self.lost.done()):
            self.lost.set_result(why)

    async def _look_after_missing_pod(self) -> None:
        """Ask what became of its Job as long as that has no pod."""
        wait = 0.5
        while not self._pod:
            await asyncio.sleep(wait)
            wait = min(wait * 2, 5.0)
            with contextlib.suppress(ApiError):
                if self._pod or (why := await self._missing()) is None:
                    continue
                self._lose(why)
                return

    async def _missing(self) -> str | None:
        """Why there will be no pod; None: there may be one."""
        job = await read(self._kube, JOBS, self._namespace, self._name)
        if job is None or job["metadata"]["uid"] != self.uid:
            return "its Job is gone"
        for condition in (job.get("status") or {}).get("conditions") or []:
            if condition["status"] == "True" and condition["type"] in {"Complete", "Failed"}:
                return str(condition.get("message") or condition.get("reason") or "its Job has ended")
        refused, waits_for = refusal(await events_of(self._kube, job))
        self.waits_for = waits_for or self.waits_for
        if refused is not None and not self._refused.done():
            self._refused.set_result(refused)
        return None

    async def _follow(self) -> None:
        """Take over what its log says, until the last record."""
        pause, again = _SHORTEST, False
        while not self._over.is_set():
            while not (self._seen.running or self._is_over):
                await self._change.wait()
            before, had_ended = self.use, self._is_over
            try:
                async with contextlib.aclosing(self._lines(again=again)) as lines:
                    async for line in lines:
                        self._record(line)
            except ApiError as error:
                if error.status == _NOT_FOUND:
                    return
            except (aiohttp.ClientError, TimeoutError):
                pass
            if had_ended:
                return
            again = True
            pause = _SHORTEST if self.use != before else min(pause * 2, _LONGEST)
            await asyncio.sleep(pause)

    def _record(self, line: bytes) -> None:
        record = GatewayRecord.read(line)
        if record is None:
            return
        self.use = record.use
        self._listening.set()
        if record.over:
            self._over.set()

    async def _lines(self, *, again: bool) -> AsyncGenerator[bytes, None]:
        path = PODS.path(self._namespace, self._pod["metadata"]["name"], "log")
        params = {"container": CONTAINER, "follow": "true", **({"tailLines": _LAST_LINES} if again else {})}
        rest = b""
        async with contextlib.aclosing(self._kube.stream(path, params=params, silence_seconds=_SILENCE_SECONDS)) as log:
            async for chunk in log:
                *whole, rest = (rest + chunk).split(b"\n")
                rest = rest[:_MOST_LINE_BYTES]
                for line in whole:
                    yield line


def concluded(outcome: Outcome, lost: str | None, *, cancelled: bool) -> Outcome:
    """How an attempt ended whose gateway was `lost` before, for that reason; None: it was there to the end.

    `cancelled`: whether somebody asked for the attempt's end, so that it was not ended because of the gateway."""
    failed = outcome.reason in _FAILURES
    if lost is None or not (failed or (outcome.reason == ExitReason.CANCELLED and not cancelled)):
        return outcome
    what = f"its program {outcome.message}" if failed else "nothing of it is alive"
    message = f"the egress gateway of its restricted network was lost ({lost}); {what}"
    return replace(outcome, reason=ExitReason.GATEWAY_LOST, message=message)


def _why(pod: Mapping[str, Any], seen: Look) -> str:
    status = pod.get("status") or {}
    if status.get("reason") or status.get("message"):
        return str(status.get("message") or status["reason"]).strip()
    ended = seen.terminated
    if ended is not None:
        return ended.message or f"{ended.reason or 'Error'}, exit code {ended.exit_code}"
    return "its pod was deleted"
