import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from policies import allowing, policy
from remit.policy.patterns import BadPattern, Pattern, glob


@pytest.mark.parametrize(
    ("source", "column", "what"),
    [
        ("(ab", 1, "missing )"),
        ("a(b(c)d", 2, "missing )"),
        (r"\((b", 3, "missing )"),
        ("(a)(b", 4, "missing )"),
        ("[(](x", 4, "missing )"),
        ("a)b", 2, "unexpected )"),
        ("(a)(b)c)", 8, "unexpected )"),
        ("ab[c", 3, "missing ]"),
        ("a**", 2, "bad repetition operator"),
        ("x*y**", 4, "bad repetition operator"),
        ("x{5}y{5000}", 6, "invalid repetition size"),
        ("*a", 1, "no argument for repetition"),
        ("é[z-a]", 3, "invalid character class range"),
        ("ab\\", 3, "trailing \\"),
        (r"(a)\1", 4, "no back-references"),
        ("a(?=x)", 2, "no look-around"),
        ("a(?!x)", 2, "no look-around"),
        (r"\pN{999}", 8, "too large"),
    ],
)
def test_a_mistake_is_reported_with_its_column(source, column, what):
    (problem,) = allowing("ls", source).problems
    assert problem.field == "spec.commands.allow[1].pattern"
    assert problem.message.startswith(f"column {column}: ")
    assert what in problem.message


def test_nothing_is_printed_for_a_bad_pattern(capfd):
    allowing("(ab")
    assert capfd.readouterr() == ("", "")


def test_a_pattern_that_is_not_unicode():
    with pytest.raises(BadPattern, match="column 2: not valid Unicode"):
        Pattern("a\udcff")


@given(st.text(alphabet="ab()[]*+?{}1,\\|^$.-é", max_size=14))
def test_every_mistake_has_a_column_inside_the_pattern(source):
    try:
        Pattern(source)
    except BadPattern as error:
        assert 1 <= error.column <= max(1, len(source))
        with pytest.raises(re2.error):
            options = re2.Options()
            options.log_errors = False
            re2.compile(source, options)


def test_all_mistakes_are_found_at_once():
    compiled = policy(
        commands={
            "allow": [
                {"pattern": "("},
                {"executable": "git", "args": ["(", "…", "x", "..."]},
                {"executable": "./git"},
                {"executable": "/usr/../bin/git"},
                {"executable": "gi\tt"},
            ],
            "deny": [{"executable": "git", "args": [")"]}],
        },
        scripts={"patterns": ["["]},
        limits={"memory": {"default": "2Gi", "max": "1Gi"}},
        selector={
            "matchExpressions": [
                {"key": "a", "operator": "In"},
                {"key": "b", "operator": "Exists", "values": ["x"]},
            ]
        },
    )
    assert not compiled.ready
    assert [problem.field for problem in compiled.problems] == [
        "spec.commands.allow[0].pattern",
        "spec.commands.allow[1].args[0]",
        "spec.commands.allow[1].args[1]",
        "spec.commands.allow[2].executable",
        "spec.commands.allow[3].executable",
        "spec.commands.allow[4].executable",
        "spec.commands.deny[0].args[0]",
        "spec.scripts.patterns[0]",
        "spec.limits.memory",
        "spec.selector.matchExpressions[0].values",
        "spec.selector.matchExpressions[1].values",
    ]
    assert str(compiled.problems[3]).startswith(
        "spec.commands.allow[2].executable: './git' is neither a bare name such as git nor an absolute path"
    )


def test_a_policy_cannot_blow_up():
    # Each of these is within the limit by itself.
    compiled = allowing(*(["a{1000}" * 9] * 120))
    assert [problem.field for problem in compiled.problems] == ["spec.commands"]
    assert "too big" in compiled.problems[0].message


def test_an_evil_pattern_is_harmless():
    assert not Pattern("(a+)+").matches("a" * 50_000 + "b")


@pytest.mark.parametrize(
    ("text", "image", "matches"),
    [
        ("registry.example/*@sha256:*", "registry.example/a/b@sha256:00", True),
        ("registry.example/*@sha256:*", "registry-example/a@sha256:00", False),
        ("registry.example/*@sha256:*", "evil/registry.example/a@sha256:00", False),
        ("alpine:3.2?", "alpine:3.20", True),
        ("alpine:3.2?", "alpine:3.2", False),
        ("a+b[c]", "a+b[c]", True),
    ],
)
def test_globs(text, image, matches):
    assert glob(text).matches(image) is matches
