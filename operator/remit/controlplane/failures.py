"""Refusals: every error a client sees, as a Kubernetes `Status` with the texts of kube-apiserver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from remit.controlplane.schema import Cause
from remit.errors import ApiError


class Failure(ApiError):
    """A request is refused. `body()` is the `Status` object; `headers` go out with it."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, status=status, reason=reason)
        self.message = message
        self.details = details
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.status
        return body


def as_failure(error: ApiError) -> Failure:
    """A refusal by the `schema` package, which knows status, reason and causes, but nothing of Status objects."""
    if isinstance(error, Failure):
        return error
    causes = [cause._asdict() for cause in getattr(error, "causes", ())]
    return Failure(error.status, error.reason, str(error), {"causes": causes} if causes else None)


class PlainFailure(Exception):
    """A refusal that Kubernetes answers in plain text: the path leads nowhere, or the method is unknown there."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def _details(group: str, kind: str, name: str = "", **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in details.items() if value not in ("", None)}


def qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def quoted(text: str) -> str:
    """Text in double quotes, as Go's %q writes it."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else _escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character) or (
        f"\\x{ord(character):02x}" if ord(character) < 0x80 else f"\\u{ord(character):04x}"
    )


def not_found(group: str, plural: str, name: str) -> Failure:
    return Failure(
        404, "NotFound", f"{qualified(group, plural)} {quoted(name)} not found", _details(group, plural, name)
    )


def no_such_resource() -> Failure:
    """A path within the built-in groups that leads nowhere."""
    return Failure(404, "NotFound", "the server could not find the requested resource", {})


def no_such_method() -> Failure:
    return Failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def no_such_path() -> PlainFailure:
    return PlainFailure(404, "404 page not found\n")


def already_exists(group: str, plural: str, name: str) -> Failure:
    return Failure(
        409, "AlreadyExists", f'{qualified(group, plural)} "{name}" already exists', _details(group, plural, name)
    )


def being_deleted(group: str, plural: str, name: str) -> Failure:
    failure = already_exists(group, plural, name)
    failure.message = f"object is being deleted: {failure.message}"
    return failure


def generated_name_exists(group: str, plural: str, name: str) -> Failure:
    failure = already_exists(group, plural, name)
    failure.message += ", the server was not able to generate a unique name for the object"
    failure.details = {**(failure.details or {}), "retryAfterSeconds": 1}
    failure.headers["Retry-After"] = "1"
    return failure


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(group: str, plural: str, name: str, why: str = MODIFIED) -> Failure:
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return Failure(409, "Conflict", message, _details(group, plural, name))


def invalid(group: str, kind: str, name: str, causes: Sequence[tuple[str, str, str]]) -> Failure:
    """422. The message lists every cause once, in the way of Kubernetes' aggregate errors."""
    texts = list(dict.fromkeys(f"{field}: {message}" for _, message, field in causes))
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    listed = [{"reason": reason, "message": message, "field": field} for reason, message, field in causes]
    details = _details(group, kind, name, causes=listed)
    return Failure(422, "Invalid", f'{qualified(group, kind)} "{name}" is invalid: {joined}', details)


def bad_request(message: str) -> Failure:
    return Failure(400, "BadRequest", message)


def forbidden(group: str, plural: str, name: str, why: str, causes: Sequence[Cause] = ()) -> Failure:
    details = _details(group, plural, name, causes=[cause._asdict() for cause in causes] or None)
    return Failure(403, "Forbidden", f'{qualified(group, plural)} "{name}" is forbidden: {why}', details)


def not_supported(group: str, plural: str, verb: str) -> Failure:
    message = f'{verb} is not supported on resources of kind "{qualified(group, plural)}"'
    return Failure(405, "MethodNotAllowed", message, _details(group, plural))


def unsupported_media_type(accepted: Sequence[str]) -> Failure:
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return Failure(415, "UnsupportedMediaType", message)


def not_acceptable(accepted: Sequence[str]) -> Failure:
    return Failure(406, "NotAcceptable", f"only the following media types are accepted: {', '.join(accepted)}")


def unauthorized() -> Failure:
    return Failure(401, "Unauthorized", "Unauthorized")


def no_impersonation() -> Failure:
    """Serving the request as the administrator would give more than was asked for."""
    return Failure(403, "Forbidden", "this server has one user and no impersonation; leave out --as and its like")


def expired(message: str) -> Failure:
    return Failure(410, "Expired", message)


def too_large_revision(asked: int, current: int) -> Failure:
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return Failure(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        {"causes": [cause], "retryAfterSeconds": 1},
        {"Retry-After": "1"},
    )


def body_too_large(limit: int) -> Failure:
    return Failure(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def too_many_operations(limit: int, given: int) -> Failure:
    message = f"The allowed maximum operations in a JSON patch is {limit}, got {given}"
    return Failure(413, "RequestEntityTooLarge", f"Request entity too large: {message}")


def internal(message: str) -> Failure:
    return Failure(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})
