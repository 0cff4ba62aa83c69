"""The chart's permissions against the requests that the operator made of the API server in all tests before."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

import installyaml
from e2e.cluster.installation import Installation
from parts import require

OF_A_CONFLICT = {
    (where, f"{plural}.remit.dev", "get")
    for where, plural in (
        ("served", "commandpolicies"),
        ("served", "deployments"),
        ("served", "executiontasks"),
        ("system", "commandpolicies"),
    )
}
"""Used when somebody else writes in between, which not every run has."""
CREATED = 201
Requests = set[tuple[str, str, str]]
"""Where, what, and the verb."""


@pytest.fixture
def requests(request: pytest.FixtureRequest) -> Path:
    log = os.environ.get("REMIT_TEST_AUDIT_LOG", "")
    require("audit-log", log, "name in REMIT_TEST_AUDIT_LOG where the cluster's API server logs its requests")
    here = Path(__file__)
    missing = {path.name for path in here.parent.glob("test_*.py")} - {item.path.name for item in request.session.items}
    if missing:
        pytest.skip(f"it judges a run of all files here; {', '.join(sorted(missing))} are left out")
    return Path(log)


def test_the_operator_is_granted_what_it_uses_and_no_more(installation: Installation, requests: Path) -> None:
    used, refused = asked(requests, installation)

    assert refused == set()
    granted = grants(installation)
    assert used - granted == set(), "allowed by something else"
    assert granted - used - OF_A_CONFLICT == set(), "granted, and never used"


def asked(log: Path, installation: Installation) -> tuple[Requests, Requests]:
    """What the operator asked for in its two namespaces, and what was refused anywhere."""
    account = f"system:serviceaccount:{installation.system}:"
    places = {installation.namespace: "served", installation.system: "system"}
    used, refused = set(), set()
    with log.open() as lines:
        for request in (json.loads(line) for line in lines if account in line):
            what = request.get("objectRef", {})
            if not request["user"]["username"].startswith(account) or what.get("resource", "self").startswith("self"):
                continue
            part = f"/{what['subresource']}" if "subresource" in what else ""
            name = f"{what['resource']}.{what.get('apiGroup', '')}".rstrip(".") + part
            place = what.get("namespace", "")
            used.add((places.get(place, place), name, request["verb"]))
            if request["verb"] == "patch" and request.get("responseStatus", {}).get("code") == CREATED:
                used.add((places.get(place, place), name, "create"))  # which an apply needs, then
            if request["annotations"]["authorization.k8s.io/decision"] != "allow":
                refused.add((places.get(place, place), name, request["verb"]))
    return used, refused


def grants(installation: Installation) -> Requests:
    """What the roles of the chart allow, that of its uninstallation included."""
    texts = installyaml.render(installation.values, name=installation.release, namespace=installation.system)
    places = {installation.namespace: "served", installation.system: "system"}
    granted = set()
    for role in installyaml.objects(texts):
        for rule in role.get("rules", ()) if role["kind"] == "Role" else ():
            for group, resource in itertools.product(rule["apiGroups"], rule["resources"]):
                plural, slash, part = resource.partition("/")
                name = f"{plural}.{group}".rstrip(".") + slash + part
                granted |= {(places[role["metadata"]["namespace"]], name, verb) for verb in rule["verbs"]}
    return granted
