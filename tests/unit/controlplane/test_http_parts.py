"""Tests paths, options, Accept headers and bodies."""

from __future__ import annotations

import asyncio.sslproto

import pytest

from remit.controlplane import startup
from remit.controlplane.failures import Failure, quoted
from remit.controlplane.http.bodies import decode, load_yaml
from remit.controlplane.http.discovery import wanted_aggregation
from remit.controlplane.http.negotiation import negotiate
from remit.controlplane.http.request import ApiRequest, ResourcePath, parse_path
from remit.controlplane.http.warnings import warning_headers
from remit.controlplane.resources import version_order
from remit.controlplane.verbs.revisions import Continue, check_list_revision


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/api/v1/namespaces", ResourcePath("", "v1", "namespaces")),
        ("/api/v1/namespaces/a", ResourcePath("", "v1", "namespaces", "", "a")),
        ("/api/v1/namespaces/a/finalize", ResourcePath("", "v1", "namespaces", "", "a", "finalize")),
        ("/api/v1/namespaces/a/secrets", ResourcePath("", "v1", "secrets", "a")),
        ("/api/v1/namespaces/a/secrets/status", ResourcePath("", "v1", "secrets", "a", "status")),
        ("/apis/g/v1/things", ResourcePath("g", "v1", "things")),
        ("/apis/g/v1/namespaces/n/things/a/scale", ResourcePath("g", "v1", "things", "n", "a", "scale")),
        ("/apis/g/v1/namespaces/n/things/a/b/c", None),
        ("/api", None),
        ("/api/v1", None),
        ("/apis/g/v1", None),
        ("/healthz", None),
    ],
)
def test_paths(path: str, parts: ResourcePath | None) -> None:
    assert parse_path(path) == parts


def request(**query: str) -> ApiRequest:
    return ApiRequest("GET", "/", query, {"User-Agent": "kubectl/v1.37 (linux)"})


def test_options_are_read_as_kubernetes_reads_them() -> None:
    assert [request(watch=text).flag("watch") for text in ("", "1", "true", "yes", "0", "false")] == [
        *(True, True, True, True),
        *(False, False),
    ]
    assert not request().flag("watch")
    assert request(limit="5").number("limit") == 5 and request(limit="").number("limit") is None
    with pytest.raises(Failure, match="invalid syntax"):
        request(limit="many").number("limit")
    assert request().manager == "kubectl" and request(fieldManager="me").manager == "me"


def test_accept() -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    assert negotiate(table).shape == "Table"
    assert negotiate("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").shape == "Metadata"
    assert negotiate("application/vnd.kubernetes.protobuf,application/json").shape == "Object"
    assert negotiate("application/json;q=0.2,application/yaml").yaml
    assert negotiate("").content_type == "application/json"
    for accept in ("text/html", "application/json;as=Chair;v=v1;g=meta.k8s.io"):
        with pytest.raises(Failure) as refused:
            negotiate(accept)
        assert refused.value.status == 406


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
def test_aggregated_discovery_is_given_in_the_version_asked_for(version: str) -> None:
    wanted = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList,application/json"
    assert wanted_aggregation(wanted) == version
    assert wanted_aggregation("application/json") is None


def test_bodies() -> None:
    assert decode(b'{"a": 1}', "", "Thing") == {"a": 1}
    assert decode(b"a: 2020-01-01", "application/yaml", "Thing") == {"a": "2020-01-01"}, "dates stay text"
    assert load_yaml(b"a: [1, yes]") == {"a": [1, True]}
    for body, type, status in (
        (b"{", "application/json", 400),
        (b"a: [", "application/yaml", 400),
        (b"{}", "text/plain", 415),
        (b"k8s\x00", "application/vnd.kubernetes.protobuf", 415),
    ):
        with pytest.raises(Failure) as refused:
            decode(body, type, "Thing", protobuf=False)
        assert refused.value.status == status


def test_versions_are_ordered_by_kubernetes_priority() -> None:
    versions = ["v1alpha1", "foo", "v2beta1", "v1", "v10", "v2", "v1beta2", "v2alpha1"]
    assert sorted(versions, key=version_order) == [
        *("v10", "v2", "v1", "v2beta1", "v1beta2", "v2alpha1", "v1alpha1", "foo")
    ]


def test_continue_tokens_survive_and_nonsense_is_refused() -> None:
    token = Continue(7, "a/b")
    assert Continue.decode(token.encode()) == token
    for text in ("nonsense", "e30", "%%%"):
        with pytest.raises(Failure):
            Continue.decode(text)


def test_revision_options_that_contradict_each_other() -> None:
    assert check_list_revision(request(resourceVersion="5")) == (5, "")
    for query in (
        {"resourceVersion": "x"},
        {"resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "Sometimes", "resourceVersion": "1"},
        {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
        {"resourceVersionMatch": "Exact", "resourceVersion": "1", "continue": "x"},
    ):
        with pytest.raises(Failure):
            check_list_revision(request(**query))


def test_names_are_quoted_as_go_does() -> None:
    assert quoted('a"b\x00é\n') == '"a\\"b\\x00é\\n"'


@pytest.mark.parametrize(
    "text",
    ['"' * 4096, "\\" * 4096, "\U0001f600" * 4096, "\U0001f600" * 2000],
    ids=["quotes", "backslashes", "emoji", "fewer emoji"],
)
def test_a_warning_stays_below_what_clients_take_when_it_is_escaped(text: str) -> None:
    (header,) = warning_headers([text])
    assert header.startswith('299 - "')
    assert len(header.encode()) <= 8190
    assert warning_headers(["a" * 4096]) == [f'299 - "{"a" * 4096}"']


def test_what_a_tls_connection_reads_into_is_no_mapping_of_its_own() -> None:
    """Each read allocates a buffer of that size, and a separate memory mapping made a `get` half as slow again."""
    assert asyncio.sslproto.SSLProtocol.max_size < startup._MAPPED_BYTES
