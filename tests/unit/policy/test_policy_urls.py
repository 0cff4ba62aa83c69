"""Tests that each URL has one canonical form, which every program reads alike, and that ambiguous URLs have none."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import pytest
import urllib3
import yarl
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from policies import policy, request
from remit.api.operations import FileOperation, HttpOperation
from remit.policy.deciding import decide
from remit.policy.rules import describe
from remit.policy.urls import BadUrl, Url
from remit.policy.verdict import Reason

TEXT = st.text(
    st.one_of(st.sampled_from("abz09-._~%/\\:;=&?#@!$'()*+,[]{}|^`\"<> 2eEfF5cC"), st.characters()), max_size=40
)
HOSTS = st.one_of(
    st.sampled_from(
        ["api.test", "API.test:080", "b\u00fccher.test", "127.0.0.1", "[::1]:8080", "xn--a.test", "a_b.test"]
    ),
    TEXT,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://api.test", "https://api.test/"),
        ("HTTPS://API.Test:443/", "https://api.test/"),
        ("http://api.test:/", "http://api.test/"),
        ("http://api.test:0443/", "http://api.test:443/"),
        ("https://b\u00fccher.test/", "https://xn--bcher-kva.test/"),
        ("https://\uff41pi.test/", "https://api.test/"),
        ("http://[0:0::1]:80/", "http://[::1]/"),
        ("http://127.0.0.1/", "http://127.0.0.1/"),
        ("https://a.test/%7euser/%41%2d", "https://a.test/~user/A-"),
        ("https://a.test/caf\u00e9/%c3%a9", "https://a.test/caf%C3%A9/%C3%A9"),
        ("https://a.test/a b|c[d]", "https://a.test/a%20b%7Cc%5Bd%5D"),
        ("https://a.test/a:@!$&'()*+,;=b", "https://a.test/a:@!$&'()*+,;=b"),
        ("https://a.test?x[]=%7e/?%0a", "https://a.test/?x%5B%5D=%7e/?%0a"),
        ("https://a.test/%2f?acl=%2f*~hmac=1", "https://a.test/%2F?acl=%2f*~hmac=1"),  # a signed token of Akamai
        ("https://a.test/?", "https://a.test/?"),
        ("https://a.test/...", "https://a.test/..."),
        ("https://a.test/100%25", "https://a.test/100%25"),
        ("https://a.test/?q=%252e%252e", "https://a.test/?q=%252e%252e"),
    ],
)
def test_canonical(text: str, canonical: str) -> None:
    assert str(Url.parse(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "", "api.test", "ftp://a.test/", "http:a.test", "http:/a.test", "http:///a", "//a.test/", " http://a.test/",
        "http://a.test/ ", "http://a.test/\n", "ht\ttp://a.test/", "http://a.test/\u200b",
        "http://a.test/#b", "http://a.test#@b.test/", "http://u@a.test/", "http://u:p@a.test/", "http://@a.test/",
        "http://a.test\\@b.test/", "http://a.test/\\b", "http:\\\\a.test/", "http://a.test\\b",
        "http://0x7f.1/", "http://2130706433/", "http://127.1/", "http://0177.0.0.1/", "http://127.0.0.01/",
        "http://\uff11\uff12\uff17.0.0.1/", "http://[::ffff:127.0.0.1]/", "http://127.0.0.1./",
        "http://a.test./", "http://a.test\u3002/", "http://a..test/", "http://a%2etest/", "http://a%00.test/",
        "http://a test/", "http://[::1/", "http://::1/", "http://[fe80::1%25eth0]/", "http://[v1.a]/",
        "http://xn--a.test/", "http://a.test:0/", "http://a.test:65536/", "http://a.test:1:2/", "http://a.test:+80/",
        "http://a.test:\u0661/", "http://a.test/%", "http://a.test/%zz", "http://a.test/?q=100%",
        "http://a.test/%2", "http://a.test/\ud800", "http://a.test/%ff", "http://a.test/%c0%af", "http://a.test/;/a",
        "http://a.test/%00", "http://a.test/a%0d%0ab", "http://a.test/%7f", "http://a.test/a%5cb",
        "http://a.test/%2561", "http://a.test/" + "a" * 8192, "http://a.test/?" + "\u6f22" * 1000,
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(BadUrl):
        Url.parse(text)


@settings(suppress_health_check=[HealthCheck.filter_too_much])  # most of such texts are refused
@given(HOSTS, TEXT)
def test_canonical_is_final_and_everybody_reads_it_alike(host: str, rest: str) -> None:
    text = f"http://{host}/{rest}"
    try:
        url = Url.parse(text)
    except BadUrl:
        assume(False)
    canonical = str(url)
    assert Url.parse(canonical) == url
    assert canonical.isascii()
    host, port = str(url.destination.host), url.destination.port
    split, sent, named = urlsplit(canonical), httpx.URL(canonical), yarl.URL(canonical)
    pooled = urllib3.util.parse_url(canonical)
    assert (split.hostname, split.port or 80) == (host, port)
    assert (sent.raw_host.decode(), sent.port or 80, sent.raw_path.decode()) == (host, port, url.target)
    assert (named.raw_host, named.port, named.raw_path) == (host, port, url.path)
    assert ((pooled.host or "").strip("[]"), pooled.port or 80) == (host, port)
    assert (split.path, split.fragment, split.username) == (url.path, "", None)
    assert (pooled.path, pooled.fragment, pooled.auth) == (url.path, None, None)


@given(TEXT)
def test_only_a_bad_url_is_raised(text: str) -> None:
    base = Url.parse("https://api.test/v1/a?b")
    for parse in (Url.parse, base.join):
        try:
            url = parse(text)
        except BadUrl:
            continue
        assert Url.parse(str(url)) == url
        assert not {"..", "."} & set(url.path.split("/"))


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("x", "https://api.test/v1/x"),
        ("../x#y", "https://api.test/x"),
        ("../../../x", "https://api.test/x"),
        ("./", "https://api.test/v1/"),
        ("?q", "https://api.test/v1/a?q"),
        ("#top", "https://api.test/v1/a?b"),
        ("/x", "https://api.test/x"),
        ("//b.test", "https://b.test/"),
        ("http://b.test/x#y", "http://b.test/x"),
    ],
)
def test_where_a_redirect_leads(reference: str, target: str) -> None:
    assert str(Url.parse("https://api.test/v1/a?b").join(reference)) == target


@pytest.mark.parametrize(
    "reference",
    ["/v1/../x", "http://b.test/../x", "%2e%2e/..;/x", "..%2fx", "\\x", "http:x", "https:/x", "javascript:x", "///x",
     "//", "//u@b.test", " /x", "/x\n", "//0x7f.1/"],
)  # fmt: skip
def test_a_redirect_that_leads_nowhere(reference: str) -> None:
    with pytest.raises(BadUrl):
        Url.parse("https://api.test/v1/a").join(reference)


def allows(path: str, *globs: str) -> bool:
    own = policy(http={"allow": [{"hosts": ["a.test"], "paths": list(globs)}]})
    assert own.ready, own.problems
    http = HttpOperation(url=f"https://a.test{path}")
    return decide(request("x", command=None, operation="http", subject=http), [own]).allowed


@pytest.mark.parametrize(
    ("glob", "path", "allowed"),
    [
        ("/v1/**", "/v1/%61/b", True),
        ("/v1/**", "/%76%31/a", True),
        ("/v1/**", "/v1", True),
        ("/v1/**", "/v1x", False),
        ("/caf\u00e9/%7e*", "/caf%C3%A9/~me", True),
        ("/a b/?", "/a%20b/c", True),
        ("/v1/.*", "/v1/.well-known", True),
        # A part that a server may read as another path must be in the rule exactly as in the URL.
        ("/v1/*", "/v1/a%2Fb", False),
        ("/v1/**", "/v1/a%2fb", False),
        ("/v1/a%2fb/*", "/v1/a%2Fb/c", True),
        ("/v1/a%2Fb/*", "/v1/a%2Fb/c%2Fd", False),
        ("/v1/*/read", "/v1//read", False),
        ("/v1/**", "/v1//read", False),
        ("/v1//*", "/v1//read", True),
        ("/v1/*.json", "/v1/admin;.json", False),
        ("/v1/*.json", "/v1/admin%3b.json", False),
        ("/v1/*.json", "/v1/admin%3f.json", False),
        ("/v1/*.json", "/v1/admin%23.json", False),
        ("/v1/*;v=1", "/v1/a;v=1", True),
    ],
)
def test_paths_are_matched_in_their_canonical_form(glob: str, path: str, allowed: bool) -> None:
    assert allows(path, glob) is allowed
    assert allows(path)


def test_a_denial_names_what_the_glob_would_have_to_contain() -> None:
    own = policy(http={"allow": [{"hosts": ["a.test"], "paths": ["/v1/**"]}]})
    http = HttpOperation(url="https://a.test/v1/a%2fb")
    decision = decide(request("x", command=None, operation="http", subject=http), [own])
    assert "at /v1/a%2Fb; spec.http.allow[0].paths has /v1/**; servers differ in how they read %2F" in decision.message


@pytest.mark.parametrize("glob", ["/v1/../x", "/v1/%2e%2e/*", "/*/..", "/v1/..;/x", "/a%", "/a\\b", "/%252e", "/%ff"])
def test_a_glob_that_matches_nothing_is_a_mistake(glob: str) -> None:
    own = policy(http={"allow": [{"hosts": ["a.test"], "paths": ["/ok", glob]}]})
    assert [problem.field for problem in own.problems] == ["spec.http.allow[0].paths[1]"]


@pytest.mark.parametrize(
    "name",
    ["Host", "Content_Length", "X-Original-URL", "x-rewrite-url", "X_Forwarded_Host", "X-Forwarded-Prefix", "Forwarded",
     "X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method", "X-Host", "Proxy-Connection",
     "X-HTTP-Host-Override", "X-Override-URL", "X-Script-Name"],
)  # fmt: skip
def test_a_header_that_would_make_it_another_request(name: str) -> None:
    http = HttpOperation.model_validate({"url": "https://a.test/", "headers": [{"name": name, "value": "x"}]})
    for enforcement in ("Enforce", "Audit"):
        own = policy(http={"allow": [{"hosts": ["*"]}]}, enforcement=enforcement)
        decision = decide(request("x", command=None, operation="http", subject=http), [own])
        assert (decision.allowed, decision.reason) == (False, Reason.INVALID_REQUEST)
        assert decision.message.startswith(f"spec.http.headers[0]: {name} is Remit's own")


@pytest.mark.parametrize("name", ["Accept", "X-Forwarded-Proto", "X-Forwarded-For", "Authorization", "X-Hostname"])
def test_a_header_that_does_not(name: str) -> None:
    http = HttpOperation.model_validate({"url": "https://a.test/", "headers": [{"name": name, "value": "x"}]})
    own = policy(http={"allow": [{"hosts": ["*"]}]})
    assert decide(request("x", command=None, operation="http", subject=http), [own]).allowed


@pytest.mark.parametrize(
    ("url", "recorded"),
    [
        ("https://A.test:443/%7Ea?token=canary", "https://a.test/~a"),
        ("https://user:canary@a.test/x", "https://a.test/x"),
        ("https://a.test/../x#canary", "https://a.test/../x"),
        ("https://user:can#ary@a.test/x", "https://user:\u2026"),
        ("https://user:can?ary@a.test/x", "https://user:\u2026"),
        ("https://user:can/ary@a.test/x", "https://user:\u2026"),
        ("https://a.test:8080/../x", "https://a.test:8080/../x"),
        ("https://[::1]:8080/../x", "https://[::1]:8080/../x"),
    ],
)
def test_records_have_the_canonical_form_and_no_secrets(url: str, recorded: str) -> None:
    http = HttpOperation(url=url)
    assert describe(request("x", command=None, operation="http", subject=http)) == f"GET {recorded}"
    content = {"operation": "write", "path": "/srv/a", "contentFrom": {"url": url}}
    file = FileOperation.model_validate(content)
    assert describe(request("x", command=None, operation="file", subject=file)) == f"write of /srv/a from {recorded}"


def test_no_part_of_a_password_is_in_a_message() -> None:
    with pytest.raises(BadUrl) as caught:
        Url.parse("https://user:can/ary@a.test/x")
    assert "can" not in str(caught.value)
