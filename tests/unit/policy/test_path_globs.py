"""Tests that globs of paths have the same meaning everywhere, and match no more than a reference implementation."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.policies import policy, request

from remit.api.operations import FileOperation
from remit.api.volumes import HostPathVolume, Volume
from remit.backends.pathpattern import PathPattern
from remit.policy.deciding import Decision, decide
from remit.policy.globs import Overlaps
from remit.policy.httprules import UrlPathPattern
from remit.policy.patterns import path_glob

_GLOBS = st.lists(st.sampled_from(["a", "b", "ü", ".", "*", "**", "?", "/", "/**", "/**/", "/**/a"]), max_size=6).map(
    lambda pieces: "/" + "".join(pieces)
)
_PATHS = st.lists(st.sampled_from(["a", "b", ".", "..", "/", "\n", "ü"]), max_size=8).map(
    lambda pieces: "/" + "".join(pieces)
)
_PARTS = st.lists(st.sampled_from(["a", "b", "*", "?", "a*", "**"]), min_size=1, max_size=5)
_NAMES = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=5)


def reference(glob: str, path: str) -> bool:
    """Matches a glob with `**` for any characters, and with each way to leave out folders for `**`."""
    parts = glob.split("/")
    spans = [index for index, part in enumerate(parts) if part == "**" and index > 0]
    for left_out in itertools.chain.from_iterable(itertools.combinations(spans, n) for n in range(len(spans) + 1)):
        kept = "/".join(part for index, part in enumerate(parts) if index not in left_out)
        pieces = re.split(r"(\*\*|\*|\?)", kept)
        words = {"**": r"[^\n]*", "*": "[^/]*", "?": "[^/]"}
        if re.fullmatch("".join(words.get(piece) or re.escape(piece) for piece in pieces), path):
            return True
    return False


@given(glob=_GLOBS, path=_PATHS)
@example(glob="/a/**/b", path="/a/b")
@example(glob="/a/**/b", path="/ab")
@example(glob="/a/**/b", path="/a/xb")
@example(glob="/a/**", path="/a")
@example(glob="/a/**/**", path="/a")
@example(glob="/a/**", path="/ab")
@example(glob="/a**/b", path="/ab")
@example(glob="/a/**b", path="/a")
@example(glob="/**/a", path="/a")
@example(glob="/a/***/b", path="/a/b")
def test_a_glob_matches_what_the_reference_does(glob: str, path: str) -> None:
    assert path_glob(glob).matches(path) == reference(glob, path)


@given(parts=_PARTS, names=_NAMES)
@example(parts=["**", "a"], names=["a"])
@example(parts=["a", "**", "b"], names=["a", "b"])
def test_a_tree_is_walked_by_the_same_rules(parts: list[str], names: list[str]) -> None:
    if parts[-1] == "**":  # in a task it stands for what is below the folder, in a policy for the folder too
        parts = [*parts, "*"]
    pattern = PathPattern(parts, whole_folders=False)
    state = pattern.start
    for name in names:
        state = pattern.enter(state, name)
    assert pattern.accepts(state) == path_glob("/" + "/".join(parts)).matches("/" + "/".join(names))


@given(folder=st.sampled_from(["/", "/a", "/a/b"]), parts=_PARTS, allowed=_GLOBS, names=_NAMES)
@example(folder="/a", parts=["*"], allowed="/a/**/b", names=["b"])
@example(folder="/a", parts=["**", "b"], allowed="/a/b", names=["b"])
def test_globs_that_match_a_path_overlap(folder: str, parts: list[str], allowed: str, names: list[str]) -> None:
    path = "/".join([folder.rstrip("/"), *names])
    if path_glob("/".join([folder.rstrip("/"), *parts])).matches(path) and path_glob(allowed).matches(path):
        assert path == folder or Overlaps(folder, "/".join(parts)).with_(allowed)


@pytest.mark.parametrize(
    ("glob", "allowed"),
    [
        ("*.log", "/logs/**/a/*.log"),
        ("**/*.log", "/logs/*.txt"),
        ("**/b", "/logs/ab"),
        ("ab", "/logs/**/b"),
        ("*", "/logs"),
        ("a/**", "/logs/a"),
    ],
)
def test_globs_without_a_path_in_common_do_not_overlap(glob: str, allowed: str) -> None:
    assert not Overlaps("/logs", glob).with_(allowed)


def file(path: str, glob: str | None = None, deny: tuple[str, ...] = ()) -> Decision:
    rules = {"allow": [{"paths": ["/logs/**/*.log"], "operations": ["delete"]}]}
    rules["deny"] = [{"paths": [each], "operations": ["delete"]} for each in deny]
    subject = FileOperation.model_construct(operation="delete", path=path, glob=glob)
    return decide(request("x", command=None, operation="file", subject=subject), [policy(files=rules)])


def mount(path: str) -> Decision:
    rules = {"hostPaths": [{"paths": ["/logs/**/*.log"]}]}
    # The volume is constructed as if the schema had accepted it.
    volume = Volume.model_construct(name="v", host_path=HostPathVolume.model_construct(path=path))
    commands = {"allow": [{"executable": "ls"}]}
    return decide(request("ls", volumes=(volume,)), [policy(commands=commands, volumes=rules)])


@pytest.mark.parametrize("path", ["/logs/x.log", "/logs/a/x.log", "/logs/a/b/x.log", "/logs/.log"])
def test_folders_that_stand_for_none_are_allowed(path: str) -> None:
    assert file(path).allowed
    assert mount(path).allowed
    assert not file(path, deny=("/logs/**/*.log",)).allowed
    assert not file(path, deny=("/**/*.log",)).allowed


@pytest.mark.parametrize(
    "path",
    [
        "/logs",
        "/logs/",
        "/logs.log",
        "/logsx.log",
        "/logs/x.log/",
        "/logs//x.log",
        "//logs/x.log",
        "/logs/./x.log",
        "/logs/../x.log",
        "/logs/../etc/x.log",
        "/logs/a/../../etc/x.log",
        "/logs/..",
        "/logs/x.log/y",
        "/logs/x.log\n",
        "/logs/a\n/x.log",
        "/x.log",
        "/other/logs/x.log",
        "logs/x.log",
        "",
    ],
)
def test_what_else_is_spelled_alike_is_not(path: str) -> None:
    assert not file(path).allowed
    assert not mount(path).allowed


def test_a_task_s_glob_is_let_in_where_folders_stand_for_none() -> None:
    assert file("/logs", "*.log").allowed
    assert file("/logs", "**/*.log").allowed
    assert not file("/logs", "*.txt").allowed
    assert not file("/", "*.log").allowed


def test_the_folder_itself_can_be_left_out() -> None:
    glob = path_glob("/logs/*/**/*.log")
    assert [path for path in ("/logs/x.log", "/logs/a/x.log", "/logs/a/b/x.log") if glob.matches(path)] == [
        "/logs/a/x.log",
        "/logs/a/b/x.log",
    ]
    below = path_glob("/logs/**/*")
    assert [path for path in ("/logs", "/logs/a", "/logs/a/b") if below.matches(path)] == ["/logs/a", "/logs/a/b"]


@pytest.mark.parametrize("path", ["/v1//x", "/v1/a//x", "/v1/;/x", "/v1%2Fx", "/v1/%2F/x"])
def test_no_folder_of_a_url_is_made_of_what_servers_read_differently(path: str) -> None:
    pattern = UrlPathPattern.parse("/v1/**/x")
    assert pattern.matches("/v1/x")
    assert not pattern.matches(path)
