import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import allowing, policy, request
from remit.policy.argv import unacceptable
from remit.policy.deciding import decide
from remit.policy.match import Command

pytestmark = pytest.mark.no_cover


def allows(rule, *argv, resolved="", **kwargs):
    return decide(request(*argv, resolved=resolved, **kwargs), [policy(commands={"allow": [rule]})]).allowed


def denies(rule, *argv, resolved="", real=None):
    commands = {"allow": [{"pattern": ".*"}], "deny": [rule]}
    return not decide(request(*argv, resolved=resolved, real=real), [policy(commands=commands)]).allowed


class TestPattern:
    def test_the_whole_line_must_match(self):
        rule = {"pattern": "ls( -l)?"}
        assert allows(rule, "ls")
        assert allows(rule, "ls", "-l")
        assert not allows(rule, "ls", "-l", "/etc")
        assert not allows(rule, "xls")
        assert not allows(rule, "ls -l", resolved="/usr/bin/ls -l")

    def test_alternatives_do_not_escape_the_anchors(self):
        rule = {"pattern": "ls|cat x"}
        assert not allows(rule, "ls", "y")
        assert not allows(rule, "rm", "cat", "x")

    @pytest.mark.parametrize("pattern", ["echo .*", r"echo\s+.*", "(?s)echo .*", "(?m)^echo .*$", r"(?s)\Qecho\E.*"])
    def test_a_second_line_is_never_matched(self, pattern):
        assert allows({"pattern": pattern}, "echo", "hi")
        assert not allows({"pattern": pattern}, "echo", "hi\nrm -rf /")
        assert not allows({"pattern": pattern}, "echo", "hi\n")

    def test_a_backslash_s_meets_only_a_plain_space(self):
        for space in "\t\n\v\f\r\x1c\u00a0\u2028\u3000":
            assert not allows({"pattern": r"(?s)x\s*.*"}, "x", f"{space}y")

    def test_arguments_cannot_be_joined_or_split_unseen(self):
        rule = {"pattern": "rm [a-z]+"}
        assert allows(rule, "rm", "x")
        assert not allows(rule, "rm", "x y")
        assert not allows(rule, "rm", "x", "y")


class TestExecutable:
    def test_a_bare_name_is_that_word(self):
        assert allows({"executable": "git"}, "git", "push")
        for program in ["./git", "/tmp/git", "/usr/bin/git", "bin/git", "GIT", "git ", "gіt"]:
            assert not allows({"executable": "git"}, program)

    def test_a_bare_name_that_resolved_to_something_else(self):
        assert not allows({"executable": "git"}, "git", resolved="/usr/bin/not-git")

    def test_an_absolute_path_is_what_was_found(self):
        rule = {"executable": "/usr/bin/git"}
        assert allows(rule, "git")
        assert allows(rule, "/usr/bin/git")
        assert not allows(rule, "/tmp/git")
        assert not allows(rule, "git", resolved="/usr/local/bin/git")

    def test_in_an_image_the_written_name_counts(self):
        image = {"image": "alpine", "backend": "docker"}
        spec = {"backends": ["docker"], "images": {"allow": ["*"]}}
        compiled = policy(commands={"allow": [{"executable": "git"}, {"executable": "/bin/sh"}]}, **spec)
        assert decide(request("git", resolved=None, **image), [compiled]).allowed
        assert decide(request("/bin/sh", resolved=None, **image), [compiled]).allowed
        assert not decide(request("sh", resolved=None, **image), [compiled]).allowed

    def test_arguments_one_by_one(self):
        rule = {"executable": "git", "args": ["clone", "https://git.example/.*", "…"]}
        assert allows(rule, "git", "clone", "https://git.example/a")
        assert allows(rule, "git", "clone", "https://git.example/a", "dir", "--depth=1")
        assert not allows(rule, "git", "clone")
        assert not allows(rule, "git", "--upload-pack=x", "clone", "https://git.example/a")
        assert not allows(rule, "git", "clone", "x https://git.example/a")

    def test_no_ellipsis_no_more_arguments(self):
        rule = {"executable": "git", "args": ["status"]}
        assert allows(rule, "git", "status")
        assert not allows(rule, "git", "status", "-s")
        assert allows({"executable": "git", "args": []}, "git")
        assert not allows({"executable": "git", "args": []}, "git", "x")
        assert allows({"executable": "git", "args": ["..."]}, "git", "any", "thing")
        assert allows({"executable": "git"}, "git", "any", "thing")


class TestDenyIsBroad:
    @pytest.mark.parametrize(
        ("argv", "resolved", "real"),
        [
            (["git", "push"], "/usr/bin/git", None),
            (["/usr/bin/git", "push"], "/usr/bin/git", None),
            (["/opt/git", "push"], "/opt/git", None),
            (["./git", "push"], "/workspace/git", None),
            (["g", "push"], "/usr/local/bin/g", "/usr/bin/git"),
        ],
    )
    @pytest.mark.parametrize("rule", [{"executable": "git", "args": ["push", "…"]}, {"pattern": "git push.*"}])
    def test_another_spelling_does_not_get_around_it(self, rule, argv, resolved, real):
        assert denies(rule, *argv, resolved=resolved, real=real)

    def test_an_absolute_path_by_any_name(self):
        rule = {"executable": "/usr/bin/python3.11"}
        assert denies(rule, "python3", resolved="/usr/bin/python3", real="/usr/bin/python3.11")
        assert not denies(rule, "ls")

    def test_it_still_looks_at_the_arguments(self):
        assert not denies({"executable": "git", "args": ["push", "…"]}, "git", "clone")


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_nothing_unacceptable_is_ever_matched(argv):
    everything = policy(commands={"allow": [{"pattern": "(?s).*"}, {"pattern": r"(?s)(.|\s|\S)*"}]})
    allowed = decide(request(*argv, resolved="/usr/bin/x"), [everything]).allowed
    assert allowed == (unacceptable(argv) is None)


@given(st.text(min_size=1, max_size=10), st.text(min_size=1, max_size=10))
def test_a_literal_pattern_matches_only_itself(one, other):
    compiled = allowing(r"\Qecho " + "x" + r"\E")
    assert decide(request("echo", one), [compiled]).allowed == (one == "x")
    assert decide(request("echo", one, other), [compiled]).allowed is False


def test_a_command_goes_by_all_its_names():
    command = Command(("g", "x"), "/bin/g", "/opt/git")
    assert command.names == ("g", "/bin/g", "/opt/git", "git")
    assert command.lines == ("g x", "/bin/g x", "/opt/git x", "git x")
