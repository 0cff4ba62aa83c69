"""The rules of resourceVersion and resourceVersionMatch, and continue tokens."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

import orjson

from remit.controlplane.failures import Failure, bad_request, expired, invalid, quoted, too_large_revision
from remit.controlplane.http.request import ApiRequest
from remit.controlplane.storage import Store

_LONGEST_REVISION = 30
"""Digits; Python takes long to read thousands of them, and refuses more than 4,300."""


def parse_revision(text: str) -> int:
    """0 stands for "any" as well as for absence. Raises 400."""
    if not text:
        return 0
    why = ""
    if not text.isascii() or not text.isdigit():
        why = "invalid syntax"
    elif len(text) > _LONGEST_REVISION or int(text) >= 1 << 64:
        why = "value out of range"
    if why:
        shown = quoted(text)
        raise bad_request(f"resourceVersion: Invalid value: {shown}: strconv.ParseUint: parsing {shown}: {why}")
    return int(text)


def require_reached(store: Store, revision: int) -> None:
    """504 for a revision this server has not come to: a client that saw another server, or a lost disk."""
    if revision > store.revision:
        raise too_large_revision(revision, store.revision)


def too_old(revision: int, floor: int) -> Failure:
    return expired(f"too old resource version: {revision} ({floor})")


class Continue(NamedTuple):
    """The position at which a chunked list continues: the revision it shows, and the first key not shown yet."""

    revision: int
    start: str

    def encode(self) -> str:
        token = {"v": "meta.k8s.io/v1", "rv": self.revision, "start": self.start}
        return base64.urlsafe_b64encode(orjson.dumps(token)).decode().rstrip("=")

    @classmethod
    def decode(cls, token: str) -> Continue:
        """Raises 400 for what no `encode` gave."""
        try:
            match orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))):
                case {"rv": int(revision), "start": str(start)} if 0 < revision < 1 << 63 and revision is not True:
                    return cls(revision, start)
        except (ValueError, binascii.Error):
            pass
        raise bad_request("invalid continue token: continue key is not valid: illegal base64 data or contents")


def check_list_revision(request: ApiRequest) -> tuple[int, str]:
    """`resourceVersion` and `resourceVersionMatch` of a list, checked against each other as Kubernetes does."""
    revision, match = request.text("resourceVersion"), request.text("resourceVersionMatch")
    causes = []
    if why := _misplaced_match(revision, match, request.text("continue")):
        reason = "FieldValueForbidden" if why.startswith("Forbidden") else "FieldValueNotSupported"
        causes.append((reason, why, "resourceVersionMatch"))
    if "sendInitialEvents" in request.query:
        causes.append(
            ("FieldValueForbidden", "Forbidden: sendInitialEvents is forbidden for list", "sendInitialEvents")
        )
    if request.text("continue") and revision not in ("", "0"):
        raise bad_request("specifying resource version is not allowed when using continue")
    if causes:
        raise invalid("meta.k8s.io", "ListOptions", "", causes)
    return parse_revision(revision), match


def _misplaced_match(revision: str, match: str, token: str) -> str:
    if not match:
        return ""
    if match not in ("Exact", "NotOlderThan"):
        return f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan", ""'
    if token:
        return "Forbidden: resourceVersionMatch is forbidden when continue is provided"
    if not revision:
        return "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
    if match == "Exact" and revision == "0":
        return 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
    return ""
