"""Tests the pages of the documentation: their links have targets, and an API server accepts the objects that they
show."""

from __future__ import annotations

import copy
import re
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.api import definitions
from remit.api.commandpolicy import CommandPolicy
from remit.api.deployment import Deployment
from remit.api.executiontask import ExecutionTask
from remit.api.resource import CustomResource
from remit.controlplane.schema import Schema
from remit.policy.compile import compile_policy
from remit.policy.testing import parse_suite

pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "manifests/**/*.md", "charts/**/*.md")
    for path in ROOT.glob(pattern)
    if not path.is_relative_to(ROOT / ".venv")
)
EXAMPLES = sorted(path for path in (ROOT / "manifests/examples").glob("*.yaml") if not path.match("*.test.yaml"))
MODELS: dict[str, type[CustomResource]] = {
    "ExecutionTask": ExecutionTask,
    "CommandPolicy": CommandPolicy,
    "Deployment": Deployment,
}
SCHEMAS = {
    definition["spec"]["names"]["kind"]: Schema.compile(
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
    )
    for definition in definitions.crds()
}
WHOLE = {
    "ExecutionTask": {"command": {"line": "ls"}},
    "CommandPolicy": {},
    "Deployment": {"artifact": {"path": "/srv/app"}, "target": {"process": {"command": ["app"]}}},
}
"""Fields that the pages omit when they show a part of a spec."""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    """Returns the text without blocks and spans of code, in which brackets are not links."""
    return re.sub(r"```.*?```|``.*?``|`[^`\n]*`", "code", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub makes of headings, and explicit ones."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    kept = set(string.ascii_lowercase + string.digits + "-_ ")
    seen: Counter[str] = Counter()
    found = set(re.findall(r'<a name="([^"]+)">', text))
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = "".join(sign for sign in words if sign in kept or sign.isalpha()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def links(page: Path) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)\s]+)\)", prose(page))


def blocks(language: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{named(page)}:{page.read_text()[: found.start()].count(chr(10)) + 1}")
        for page in PAGES
        for found in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for text in [found[1]]
    ]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_of_the_docs_is_linked_from_the_readme_or_from_a_page_that_is() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        linked = ((page.parent / link.partition("#")[0]).resolve() for link in links(page) if ":" not in link)
        waiting += [path for path in linked if path.suffix == ".md" and path not in reached and path.exists()]
    assert {named(path) for path in (ROOT / "docs").glob("*.md")} <= {named(path) for path in reached}


@pytest.mark.parametrize("text", blocks("yaml"))
def test_what_is_shown_of_our_kinds_would_be_taken(text: str) -> None:
    for document in yaml.safe_load_all(text):
        if document.get("kind") == "CommandPolicyTest":
            assert parse_suite(text).cases
        elif document.get("kind") in MODELS and document["apiVersion"].startswith("remit.dev/"):
            assert mistakes(document) == []
        elif document.keys() == {"spec"}:
            assert any(mistakes(whole) == [] for whole in completed(document["spec"])), [
                *map(mistakes, completed(document["spec"]))
            ]


@pytest.mark.parametrize("path", EXAMPLES, ids=named)
def test_examples_would_be_taken(path: Path) -> None:
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    assert documents
    for document in documents:
        if document["apiVersion"].startswith("remit.dev/"):
            assert mistakes(document) == []


@pytest.mark.parametrize(
    ("kind", "spec", "mistake"),
    [
        ("ExecutionTask", {"command": {"line": "ls"}, "timeout": 5}, "unknown field spec.timeout"),
        (
            "ExecutionTask",
            {"http": {"url": "http://a"}, "backend": "docker"},
            "spec: Invalid value: .* goes with command and script",
        ),
        (
            "ExecutionTask",
            {"command": {"line": "ls"}, "pod": {"tolerations": [{"value": "x"}]}},
            r"tolerations\[0\].*: without a key the operator is Exists",
        ),
        (
            "ExecutionTask",
            {"command": {"line": "ls"}, "backend": "process", "pod": {"runtimeClassName": "x"}},
            "spec.pod: .* on the backend kubernetes",
        ),
        ("ExecutionTask", {"command": {"line": "ls"}, "pod": {"nodeSelector": {"a b": "c"}}}, "not one that a label"),
        ("CommandPolicy", {"commands": {"allow": [{"pattern": "("}]}}, r"spec.commands.allow\[0\].pattern: column 1"),
        ("Deployment", {"artifact": {"image": "a"}}, "spec.target: Required value"),
    ],
)
def test_a_mistake_would_be_seen(kind: str, spec: dict[str, Any], mistake: str) -> None:
    document = {"apiVersion": "remit.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
    assert any(re.search(mistake, found) for found in mistakes(document)), mistakes(document)


def completed(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the objects of which this might be a part."""
    for kind, rest in WHOLE.items():
        yield {"apiVersion": "remit.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": {**rest, **part}}


def mistakes(document: dict[str, Any]) -> list[str]:
    """Returns the errors that an API server would report to `kubectl apply`, and those that an operator would report
    about a policy."""
    schema, obj = SCHEMAS[document["kind"]], copy.deepcopy(document)
    found = [f"unknown field {path}" for path in schema.prune(obj)]
    schema.default(obj)
    found += [f"{cause.field}: {cause.message}" for cause in schema.validate(obj)]
    if not found:
        parsed = MODELS[document["kind"]].parse(document)
        if isinstance(parsed, CommandPolicy):
            found += map(str, compile_policy(parsed).problems)
    return found
