"""Tests that the parsers of commands, patterns and paths return a correct result or an error for any input."""

from __future__ import annotations

import fnmatch
import posixpath
import shlex
import subprocess
import unicodedata

import pytest
import re2
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policies import policy, request
from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTaskSpec
from remit.api.privatefile import PrivateFile
from remit.errors import InvalidInput
from remit.policy.argv import canonical, refused_character, split_line, takes_a_detour, unacceptable
from remit.policy.compile import compile_policy
from remit.policy.deciding import decide
from remit.policy.match import Command, ExecutableMatcher, PatternMatcher
from remit.policy.patterns import BadPattern, Pattern, glob
from remit.sandbox import Bubblewrap, Launch
from support import repetitions

pytestmark = pytest.mark.no_cover

# Including surrogates, because argv may contain bytes that are not text.
ANYTHING = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
WORDS = st.lists(st.text(max_size=12), min_size=1, max_size=5)
SHELLISH = st.text(alphabet="ab \t'\"\\;|&<>()", max_size=14)
REGEXISH = st.text(alphabet="ab()[]{}*+?|^$.\\-,:!<>=P0179,szZAQE", max_size=24)
PATHISH = st.lists(st.sampled_from(["", ".", "..", "a", ".a", "..a", "a.", "...", " ", "ä", "\n", "\0", "\x7f", "~"]))


@given(WORDS)
def test_a_quoted_line_gives_back_its_words(words: list[str]) -> None:
    assert split_line(shlex.join(words)) == words


@given(ANYTHING)
def test_a_line_is_split_as_shlex_does_or_refused(line: str) -> None:
    try:
        words = split_line(line)
    except InvalidInput:
        return
    assert words == shlex.split(line.strip())


@settings(max_examples=repetitions(40, soak=2000))
@given(SHELLISH)
@example('a\\ b \'c"d\' "e\'f" "g\\"h" \'\'')
def test_a_line_is_split_as_a_shell_does(line: str) -> None:
    try:
        words = split_line(line)
    except InvalidInput:
        return
    shown = subprocess.run(
        ["/bin/sh", "-c", f"set -- {line.strip()}\nfor word; do printf '%s\\0' \"$word\"; done"],
        capture_output=True,
        check=True,
        cwd="/proc",  # no redirection can write there
    )
    assert shown.stdout.decode().split("\0")[:-1] == words


@given(WORDS, WORDS)
def test_no_two_commands_share_a_canonical_line(one: list[str], other: list[str]) -> None:
    assert shlex.split(canonical(one)) == one
    assert (canonical(one) == canonical(other)) == (one == other)


@given(st.lists(ANYTHING, max_size=4))
def test_what_is_acceptable_is_harmless(argv: list[str]) -> None:
    wrong = unacceptable(argv)
    if wrong is None:
        text = "".join(argv)
        assert argv
        assert argv[0]
        assert not any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in text)
        text.encode()  # asserts that it is text
        assert posixpath.normpath(argv[0]) == argv[0].removeprefix("./") or takes_a_detour(argv[0])
    else:
        assert refused_character(wrong) is None, "the explanation itself is harmless"


@given(st.one_of(REGEXISH, ANYTHING))
def test_a_pattern_compiles_or_says_where_it_is_wrong(source: str) -> None:
    try:
        pattern = Pattern(source)
    except BadPattern as error:
        assert 1 <= error.column <= len(source) + 1
    else:
        assert isinstance(pattern.matches("echo x"), bool)


@given(REGEXISH, st.text(max_size=10))
def test_a_pattern_matches_from_end_to_end(source: str, text: str) -> None:
    try:
        pattern, whole = Pattern(source), re2.compile(rf"\A(?:{source})\z")
    except (BadPattern, re2.error):
        return
    assert pattern.matches(text) == (whole.search(text) is not None)


@given(st.text(max_size=12), st.text(max_size=12))
def test_a_literal_matches_itself_only(literal: str, text: str) -> None:
    pattern = Pattern(str(re2.escape(literal)))
    assert pattern.matches(literal)
    assert pattern.matches(text) == (literal == text)
    if not {"*", "?"} & set(literal):
        assert glob(literal).matches(text) == (literal == text)


@given(st.lists(st.one_of(REGEXISH, st.text(max_size=20)), max_size=4), st.lists(ANYTHING, max_size=4))
def test_any_policy_compiles_and_decides_on_any_command(patterns: list[str], argv: list[str]) -> None:
    rules = [{"pattern": pattern} for pattern in patterns if pattern]
    rules += [{"executable": pattern, "args": [pattern]} for pattern in patterns if pattern]
    try:
        written = CommandPolicy.parse(
            {"metadata": {"name": "p", "namespace": "data"}, "spec": {"commands": {"allow": rules}}}
        )
    except InvalidInput:
        return
    compiled = compile_policy(written)
    decision = decide(request(*(argv or [""])), [compiled])
    if decision.allowed:
        assert compiled.ready
        assert unacceptable(argv) is None
        assert compiled.allow


@given(WORDS.filter(lambda words: unacceptable(words) is None))
def test_matchers_agree_with_the_canonical_line(argv: list[str]) -> None:
    command = Command(tuple(argv), f"/usr/bin/{posixpath.basename(argv[0])}")
    exact = PatternMatcher(Pattern(str(re2.escape(canonical(argv)))))
    assert exact.allows(command)
    assert exact.denies(command)
    other = Command((*argv, "more"), command.resolved)
    assert not exact.allows(other)
    listed = ExecutableMatcher(argv[0], tuple(Pattern(str(re2.escape(word))) for word in argv[1:]))
    assert listed.denies(command)
    assert not listed.allows(other)
    assert listed.allows(command) == (argv[0] in {posixpath.basename(argv[0]), command.resolved})


@pytest.mark.parametrize("control", [*map(chr, range(32)), "\x7f", "\x85", "\u2028", "\u2029", "\u200b", "\ud800"])
def test_no_control_character_passes_any_policy(control: str) -> None:
    everything = policy(commands={"allow": [{"pattern": "(?s).*"}]})
    assert decide(request("echo", "ab"), [everything]).allowed
    for place in ("{}ab", "a{}b", "ab{}"):
        assert not decide(request("echo", place.format(control)), [everything]).allowed


@given(st.sampled_from(["/run", "/workspace", "/tmp", "/etc", ""]), PATHISH)
def test_a_private_file_stays_where_it_may_be(root: str, parts: list[str]) -> None:
    path = "/".join([root, *parts])
    plain = (
        root in {"/run", "/workspace", "/tmp"}
        and parts != []
        and not {"", ".", ".."} & set(parts)
        and all(character.isprintable() for character in path)
    )
    if path.startswith("/run/remit/") or len(path) > 256:
        return
    try:
        accepted = PrivateFile(path=path, value="x").path
    except ValidationError:
        assert not plain, path
        return
    assert plain, path
    assert posixpath.normpath(accepted) == accepted
    # The sandbox accepts what the schema accepts.
    Launch(
        Bubblewrap("/usr/bin/bwrap", "0.11.0", True, None), executable="/usr/bin/true", argv=["true"], env={},
        files={accepted: b"x"}, network="none", disk_bytes=None, working_dir="/", read_only_paths=(), rlimits={},
    ).close()  # fmt: skip


@given(ANYTHING)
@example("workspace/..")
@example("workspace/../x")
@example("workspace/./x//...y/..z/a..")
def test_a_working_directory_is_absolute_on_one_line_and_leads_down(text: str) -> None:
    for path in (text, f"/{text}"):
        try:
            spec = ExecutionTaskSpec.model_validate({"command": {"argv": ["ls"]}, "workingDir": path})
        except ValidationError:
            continue
        assert spec.working_dir.startswith("/")
        assert not any(ord(character) < 32 or ord(character) == 127 for character in spec.working_dir)
        assert ".." not in spec.working_dir.split("/")


@given(st.text("ab*?.é", max_size=6), st.text("abc.é", max_size=6))
def test_what_a_pattern_cannot_match_by_its_first_bytes_it_does_not_match(text, name):
    assert glob(text).matches(name) == (fnmatch.fnmatchcase(name, text))
