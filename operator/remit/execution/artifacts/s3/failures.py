"""Describes failures of the object store in our own words: its answers may repeat what is secret. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from remit.execution.artifacts.store import StoreUnavailable

_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3})\b")
_METADATA_SERVICE: Final = "169.254.169.254"
_CREDENTIALS: Final = "the credentials are not accepted; correct the files of --s3-credentials, or what stands for them"
_NO_CREDENTIALS: Final = "there are no credentials; give --s3-credentials, or set what the client looks for"
_RIGHTS: Final = (
    "the credentials may not do that; allow s3:ListBucket of the bucket, and s3:GetObject, s3:PutObject and"
    " s3:DeleteObject below the prefix"
)
_REGION: Final = "the bucket is in another region; set --s3-region"
_BY_CODE: Final = {
    "NoSuchBucket": "the bucket does not exist; make it, or correct --artifact-store",
    "InvalidBucketName": "the store does not accept that name of a bucket; correct --artifact-store",
    "AccessDenied": _RIGHTS,
    "AllAccessDisabled": _RIGHTS,
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "ExpiredToken": "the credentials have expired; renew them",
    "InvalidToken": _CREDENTIALS,
    "RequestTimeTooSkewed": "the clocks of this machine and of the store differ by more than it allows; set them",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "QuotaExceeded": "the store's quota is used up; raise it, or keep less with --max-artifacts",
    "XMinioStorageFull": "the store is full; make room there",
    "EntityTooLarge": "the store takes no objects of 8 MiB; raise its limit",
}
_PASSING: Final = {"QuotaExceeded", "XMinioStorageFull", "ExpiredToken", "RequestTimeTooSkewed"}
"""Failures that may end without a change of the configuration."""
_BY_TEXT: Final = (
    (("InvalidCertificate", "certificate"), "its certificate is not trusted; see --s3-ca-file", True),
    (("dns error", "failed to lookup"), "its host is not found; correct --s3-endpoint, or the name server", False),
    (("Connection refused",), "nothing answers there; correct --s3-endpoint, or start the store", False),
    (("Timeout", "timed out", "TimedOut"), "it did not answer in time", False),
    (("InvalidContentType", "InvalidMessage", "corrupt message"), "it does not speak TLS; correct --s3-endpoint", True),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure of the store. `lasting`: it remains until the configuration of one of the two sides is changed."""

    what: str
    code: str = ""
    lasting: bool = False


def unavailable(where: object, failure: Failure) -> StoreUnavailable:
    """The error has no words of the store's own, only its code."""
    told = f" ({failure.code})" if failure.code else ""
    return StoreUnavailable(f"object storage {where}: {failure.what}{told}", lasting=failure.lasting)


def failure(text: str) -> Failure:
    """Returns the failure that corresponds to an error message of the client."""
    code = found[1] if (found := _CODE.search(text)) else ""
    status = found[1] if (found := _STATUS.search(text)) else ""
    if _METADATA_SERVICE in text or "metadata endpoint" in text:
        return Failure(_NO_CREDENTIALS, lasting=True)
    if code in _BY_CODE:
        return Failure(_BY_CODE[code], code, lasting=code not in _PASSING)
    if status in {"401", "403"}:
        return Failure(_RIGHTS, code or status, lasting=True)
    if status in {"301", "307"}:
        return Failure(_REGION, code or status, lasting=True)
    if status:
        return Failure("it refused a request" if status < "500" else "it failed", code or status)
    for words, what, lasting in _BY_TEXT:
        if any(word in text for word in words):
            return Failure(what, lasting=lasting)
    return Failure("it cannot be reached; see --s3-endpoint and the network")
