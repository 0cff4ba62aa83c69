"""Policies: what they allowed and denied, and what they would say of a command."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web
from pydantic import ValidationError

from remit.api.commandpolicy import CommandPolicy
from remit.api.mistakes import first_mistake
from remit.controllers.policies import compile_object
from remit.errors import ApiError, InvalidInput
from remit.kube.client import POLICIES, Object
from remit.policy.testing import Case, Expectation, run_case
from remit.web.pages.place import place
from remit.web.rendering import View, as_yaml
from remit.web.rows import TaskRow, moment
from remit.web.sessions import Session
from remit.web.viewer import Viewer

_LISTED: Final = 15
_ASKED: Final = ("line", "namespace", "labels", "network", "backend")


def _row(obj: Object) -> dict[str, Any]:
    parsed = CommandPolicy.parse(obj)
    ready = parsed.status.ready
    last = parsed.status.last_denied
    metadata = parsed.metadata
    return {
        "namespace": metadata.namespace,
        "name": metadata.name,
        "path": f"/policies/{metadata.namespace}/{metadata.name}",
        "ready": ready.status if ready else "Unknown",
        "message": ready.message if ready else "no operator has looked at it yet",
        "enforcement": parsed.spec.enforcement,
        "matched": parsed.status.matched_tasks,
        "allowed": parsed.status.allowed,
        "denied": parsed.status.denied,
        "last": last,
        "last_at": moment((((obj.get("status") or {}).get("lastDenied")) or {}).get("time")),
    }


async def policies(request: web.Request, session: Session) -> View:
    context = {
        "policies": [_row(obj) for obj in session.viewer.policies()],
        "operator_namespace": session.viewer.operator_namespace,
        "sees_all": session.viewer.sees_all(POLICIES),
        **await _trying(session.viewer, dict.fromkeys(_ASKED, "")),
    }
    return View("policies.html", "Policies", "policies", context, ("rows",))


async def policy(request: web.Request, session: Session) -> View:
    namespace, name = place(request)
    viewer = session.viewer
    obj = await viewer.fetch(POLICIES, namespace, name)
    ceiling = namespace == viewer.operator_namespace
    named = {name, f"{namespace}/{name}"}
    decided = [row for row in viewer.tasks() if row.policy in named and (ceiling or row.namespace == namespace)]
    context = {
        "policy": _row(obj),
        "ceiling": ceiling,
        "denied": _latest([row for row in decided if row.phase == "Denied"]),
        "others": _latest([row for row in decided if row.phase != "Denied"]),
        "yaml": as_yaml(obj["spec"]),
    }
    return View("policy.html", f"{namespace}/{name}", "policies", context, ("head", "decided"))


def _latest(rows: list[TaskRow]) -> list[TaskRow]:
    return sorted(rows, key=lambda row: -row.changed)[:_LISTED]


async def try_it(request: web.Request, session: Session) -> View:
    """Decide on a request that a form has. It stays out of addresses, and so out of histories: a command may have a
    secret in it."""
    form = await request.post()
    asked = {name: str(form.get(name, "")).strip() for name in _ASKED}
    context = {
        "policies": [_row(obj) for obj in session.viewer.policies()],
        "operator_namespace": session.viewer.operator_namespace,
        "sees_all": session.viewer.sees_all(POLICIES),
        **await _trying(session.viewer, asked),
    }
    return View("policies.html", "Policies", "policies", context)


async def _trying(viewer: Viewer, asked: dict[str, str]) -> dict[str, Any]:
    """The box, what was put into it, and the answer."""
    tried: dict[str, Any] = {"asked": asked, "decision": None, "mistake": ""}
    spaces = {obj["metadata"]["namespace"] for obj in viewer.policies()} | {row.namespace for row in viewer.tasks()}
    tried["namespaces"] = sorted((spaces - {viewer.operator_namespace}) | {viewer.usual_namespace})
    tried["usual"] = viewer.usual_namespace
    if not asked["line"]:
        return tried
    namespace = asked["namespace"] or viewer.usual_namespace
    fields: dict[str, Any] = {"line": asked["line"], "namespace": namespace}
    fields |= {name: asked[name] for name in ("network", "backend") if asked[name]}
    try:
        fields["labels"] = _labels(asked["labels"])
        case = Case(expect=Expectation(decision="Allowed"), **fields)
        compiled = [compile_object(obj) for obj in await viewer.policies_of(namespace, viewer.operator_namespace)]
        tried["decision"] = run_case(case, compiled, viewer.operator_namespace).decision
    except ValidationError as error:
        tried["mistake"] = " ".join(first_mistake(error, Case))
    except InvalidInput as error:
        tried["mistake"] = str(error)
    except ApiError as error:
        tried["mistake"] = f"It cannot be told what policies say: {error}"
    return tried


def _labels(text: str) -> dict[str, str]:
    """Raises `InvalidInput`."""
    labels = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise InvalidInput(f"{part!r} is no label; write KEY=VALUE, several with commas between them")
        labels[key.strip()] = value.strip()
    return labels
