"""Tests that the starter policy allows what it is for, and cannot be bypassed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import request
from remit.policy.argv import canonical
from remit.policy.deciding import decide
from remit.policy.testing import parse_policies, parse_suite, run_cases

pytestmark = pytest.mark.no_cover

EXAMPLES = Path(__file__).parents[3] / "manifests" / "examples"
(STARTER,) = parse_policies((EXAMPLES / "00-starter-policy.yaml").read_text())


def allowed(*argv, **kwargs):
    return decide(request(*argv, namespace=STARTER.namespace, **kwargs), [STARTER]).allowed


def test_its_own_tests_pass():
    suite = parse_suite((EXAMPLES / "00-starter-policy.test.yaml").read_text())
    results = run_cases(suite, [STARTER])
    assert [result for result in results if not result.passed] == []
    rules = {result.decision.rule for result in results if result.decision.allowed}
    assert rules == {rule.name for rule in STARTER.allow}, "every rule has a case"


@pytest.mark.parametrize(
    "line",
    [
        "ls", "ls -la", "ls src", "ls -l src/a.b/c_d-e/", "cat a.txt", "cat -n a/b.txt c", "echo", "echo -n x",
        "python3 app.py", "python3 a/b.py in/x.csv key=value", "npm install", "npm test --silent",
        "npm run build", "npm build", "docker ps", "docker ps -a --no-trunc", "docker logs web",
        "docker logs --tail=5 web-1", "docker stats --no-stream web",
    ],
)  # fmt: skip
def test_what_it_is_for(line):
    assert allowed(*line.split())


USES = [
    ["ls", "-l", "{}"],
    ["cat", "{}"],
    ["cat", "a.txt", "{}"],
    ["python3", "{}"],
    ["python3", "{}.py"],
    ["python3", "app.py", "{}"],
    ["npm", "{}"],
    ["npm", "install", "{}"],
    ["npm", "run", "{}"],
    ["docker", "{}"],
    ["docker", "ps", "{}"],
    ["docker", "logs", "{}"],
    ["docker", "stats", "--no-stream", "{}"],
]
ATTACKS = [
    "..", "../x", "a/../../etc/passwd", "/etc/passwd", "//etc/passwd", "~", "~root", "./a",
    ".env", ".ssh/id_rsa", "a/.git/config", "/proc/1/environ", "/proc/self/root/etc/shadow", "file:///etc/passwd",
    "x;id", "x|id", "x&id", "x>y", "x<y", "`id`", "$(id)", "$HOME", "*", "?", "[a]", "{a,b}",
    "x y", "x'y", 'x"y', "x\\y", "!x", "#x", "",
    "x\nid", "x\rid", "x\tid", "x\0", "x\x1b[2J", "x\x7f", "x\u2028id", "x\u00a0id", "x\u200b", "x\u202e", "x\udcff",
    "-", "--", "-c", "-m", "--help=x", "-rf", "--eval", "-f", "--follow", "--host=tcp://evil", "-H",
    "раth", "a／b", "．．/x", "a\u0301\u2044b",
]  # fmt: skip


@pytest.mark.parametrize("use", USES, ids=" ".join)
def test_nothing_is_smuggled_through(use):
    attempts = ([part.replace("{}", attack) for part in use] for attack in ATTACKS)
    assert [canonical(argv) for argv in attempts if allowed(*argv)] == []


FORMS = ["./{}", "/tmp/{}", "../{}", "{} ", " {}", "{}\n", "{}\0", "{}x", "x{}", "{};id", "/usr/bin/{}"]


@pytest.mark.parametrize("program", ["ls", "cat", "echo", "python3", "npm", "docker"])
def test_no_other_program_passes_for_one_of_its_own(program):
    rest = {"cat": ["a"], "python3": ["a.py"], "npm": ["test"], "docker": ["ps"]}.get(program, [])
    assert allowed(program, *rest)
    assert [form for form in FORMS if allowed(form.format(program), *rest)] == []
    assert not allowed(f"{program} {' '.join(rest)}".strip() + " x", resolved="/usr/bin/x")


@pytest.mark.parametrize(
    "line",
    [
        "rm -rf /", "sh -c ls", "bash", "sudo ls", "env ls", "xargs ls", "find . -delete", "cat",
        "python3", "python3 -c x", "python3 -m http.server", "python app.py",
        "npm", "npm exec x", "npm install left-pad",
        "docker run x", "docker exec web sh", "docker logs -f web", "docker stats",
    ],
)  # fmt: skip
def test_what_it_is_not_for(line):
    assert not allowed(*line.split())


@given(st.sampled_from(USES[:6] + USES[7:9]), st.text(min_size=1, max_size=12))
def test_whatever_gets_through_stays_in_the_workspace(use, text):
    argv = [part.replace("{}", text) for part in use]
    if allowed(*argv):
        for path in argv[1:]:
            assert path.isascii()
            assert path.isprintable()
            assert not path.startswith("/")
            assert not {"", ".", ".."} & set(path.removesuffix("/").split("/"))
