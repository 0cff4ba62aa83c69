import shlex
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import InvalidInput
from remit.policy.argv import canonical, refused_character, shell_words, split_line, unacceptable

pytestmark = pytest.mark.no_cover

arguments = st.lists(st.text(max_size=12), min_size=1, max_size=6)


@given(arguments)
def test_the_canonical_line_gives_the_arguments_back(argv):
    assert shlex.split(canonical(argv)) == argv


@given(arguments, arguments)
def test_no_two_commands_share_a_line(one, other):
    assert (canonical(one) == canonical(other)) == (one == other)


@pytest.mark.parametrize(
    ("character", "what"),
    [
        ("\n", "a control character"),
        ("\r", "a control character"),
        ("\t", "a control character"),
        ("\0", "a control character"),
        ("\x1b", "a control character"),
        ("\x7f", "a control character"),
        ("\x85", "a control character"),
        ("\u00a0", "a space other than the plain one"),
        ("\u2003", "a space other than the plain one"),
        ("\u3000", "a space other than the plain one"),
        ("\u2028", "a line separator"),
        ("\u2029", "a paragraph separator"),
        ("\u200b", "an invisible format character"),
        ("\u202e", "an invisible format character"),
        ("\ufeff", "an invisible format character"),
        ("\udcff", "a byte that is not valid UTF-8"),
    ],
)
def test_refused_characters_are_named_and_placed(character, what):
    message = unacceptable(["echo", "ok", f"a{character}b"])
    assert message is not None
    assert message.startswith(f"argument 2 has {what} (U+{ord(character):04X}) in column 2")


IGNORABLE = [  # https://www.unicode.org/Public/17.0.0/ucd/DerivedCoreProperties.txt, Default_Ignorable_Code_Point
    *((0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F)),
    *((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF)),
    *((0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
]


def test_every_character_that_is_not_seen_is_refused():
    ignorable = {chr(code) for first, last in IGNORABLE for code in range(first, last + 1)}
    for character in map(chr, range(0x110000)):
        category = unicodedata.category(character)
        unseen = category in {"Cc", "Cf", "Cs", "Zl", "Zp"} or (category == "Zs" and character != " ")
        unseen = unseen or character in ignorable or character in "\u2800\U0001d159"
        unseen = unseen or ord(character) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF
        if unseen:
            assert refused_character(f"a{character}") is not None, hex(ord(character))
        elif category not in {"Cn", "Co"}:  # newer versions of Unicode assign more of them
            assert refused_character(f"a{character}") is None, hex(ord(character))


@pytest.mark.parametrize("character", ["\u3164", "\ufe0f", "\u115f", "\uffa0", "\U000e0100", "\u2800"])
def test_letters_and_marks_that_are_not_seen_are_named(character):
    assert "an invisible character" in (unacceptable(["echo", f"a{character}"]) or "")


@pytest.mark.parametrize("argv", [[], [""], ["", "x"]])
def test_an_empty_command(argv):
    assert unacceptable(argv) == "the command is empty"


@pytest.mark.parametrize(
    "program", ["/usr/../bin/sh", "/usr//bin/sh", "//bin/sh", "/bin/./sh", "./../sh", "a/../b", "/bin/", ".."]
)
def test_a_program_that_takes_a_detour(program):
    assert "detour" in (unacceptable([program]) or "")


@pytest.mark.parametrize("program", ["ls", "./run.sh", "/usr/bin/git", "tools/run", "..a", "a..b/c", "[", "日本"])
def test_a_program_that_does_not(program):
    assert unacceptable([program, "", "../x", "naïve", "👍"]) is None


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ("pg_dump --format=custom app", ["pg_dump", "--format=custom", "app"]),
        ("echo 'a b' \"c d\" e\\ f", ["echo", "a b", "c d", "e f"]),
        ("echo 'x | y' \"a;b\" \\| '$(id)'", ["echo", "x | y", "a;b", "|", "$(id)"]),
        ("  echo ''\n", ["echo", ""]),
        ("echo \"it's\" 'a\\'", ["echo", "it's", "a\\"]),
        ("echo $HOME *.py ~ #x", ["echo", "$HOME", "*.py", "~", "#x"]),
    ],
)
def test_a_line_is_split_like_a_shell_would_and_nothing_is_expanded(line, argv):
    assert split_line(line) == argv


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("ls | wc", 4),
        ("ls; id", 3),
        ("ls>f", 3),
        ("a && b", 3),
        ("a `id`", 3),
        ("a $(id)", 4),
        ("a\nb", 2),
        ("'x' <y", 5),
    ],
)
def test_an_operator_that_only_a_shell_would_understand(line, column):
    with pytest.raises(InvalidInput, match=rf"column {column}: no shell reads the line"):
        split_line(line)


@pytest.mark.parametrize("line", ["echo 'a", 'echo "a', "echo a\\"])
def test_a_line_that_does_not_end(line):
    with pytest.raises(InvalidInput, match="cannot be split: no"):
        split_line(line)


def test_words_that_only_a_shell_would_act_on_are_noticed():
    assert shell_words(["|", "a", "|", "b", "&&", "x>y"]) == ["|", "&&"]
