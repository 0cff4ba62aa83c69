import base64
import json
import shlex
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from remit.telemetry import multipattern
from remit.telemetry.encodings import MOST_BYTES, MOST_LINES, MOST_VALUES, PIECE, excess
from remit.telemetry.redact import MASK, Redactor
from support import repetitions

SECRET = "s3cr3t\"'$ value\nwith lines enough"


@pytest.fixture(params=[0, 64], ids=["looked up", "one by one"], autouse=True, scope="module")
def way(request):
    """Both ways to search for secrets must have the same result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multipattern, "_FEW", request.param)
        yield


small = st.text(alphabet="abAB", min_size=4, max_size=6)


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        repr(SECRET),
        json.dumps(SECRET),
        quote(SECRET, safe=""),
        shlex.quote(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_secret_is_found_however_it_is_written(shown):
    redactor = Redactor([SECRET])
    assert redactor.redact(f"a {shown} b").replace('"', "").replace("'", "") == f"a {MASK} b"
    assert b"s3cr3t" not in redactor.redact_bytes(f"a {shown} b".encode())


@pytest.mark.parametrize("user", ["a", "ab", "abc", ""])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_a_text_with_a_secret_in_it(user, encode):
    password = "s3cr3t?>~value"
    shown = Redactor([password]).redact(encode(f"{user}:{password}:x".encode()).decode())
    assert MASK in shown
    assert len(shown.replace(MASK, "")) <= 10  # parts of the surrounding text, with their padding


@given(st.binary(min_size=7, max_size=12), st.binary(max_size=5), st.binary(max_size=5))
def test_no_alignment_of_base64_hides_a_secret(secret, before, after):
    shown = Redactor([secret]).redact_bytes(base64.b64encode(before + secret + after))
    assert MASK.encode() in shown


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_of_a_secret_is_found_however_it_is_indented_and_ended(end):
    redactor = Redactor([f"first line{end}    password: hunter22{end}last line{end}"])
    assert redactor.redact("a password: hunter22\nb") == f"a {MASK}\nb"


def test_a_secret_with_a_quote_in_a_longer_word_of_a_shell():
    secret = "it's the s3cret"
    assert "s3cret" not in Redactor([secret]).redact(shlex.join(["curl", f"--header=X-Key: {secret}"]))


@pytest.mark.parametrize("mark", ["…", " …"])
def test_a_secret_that_was_cut_off_is_replaced_as_far_as_it_is_there(mark):
    secret = "kestrel-Plumage-77"
    for shown in range(4, len(secret)):
        assert (
            Redactor([secret]).redact_cut(f"`rm é{secret[:shown]}{mark}` is denied") == f"`rm é{MASK}{mark}` is denied"
        )
    assert Redactor([secret]).redact_cut(f"`rm kes{mark}` {secret}") == f"`rm kes{mark}` {MASK}"


def test_hexadecimal():
    assert Redactor([SECRET]).redact(SECRET.encode().hex()) == MASK
    assert Redactor([SECRET]).redact(SECRET.encode().hex().upper()) == MASK


def test_each_line_of_a_key_is_a_secret():
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqh\nkiG9w0BAQEFAASC\n-----END KEY-----\n"
    assert Redactor([key]).redact("> kiG9w0BAQEFAASC") == f"> {MASK}"


def test_overlapping_secrets_leave_no_rest():
    assert Redactor(["abcde", "defgh"]).redact("xabcdefghx") == f"x{MASK}x"


def test_short_values_are_no_secrets():
    redactor = Redactor()
    assert not redactor.register("1")
    assert not redactor.register("")
    assert redactor.redact("1 of 1") == "1 of 1"


def test_a_value_is_redacted_until_its_last_holder_lets_go():
    redactor = Redactor()
    redactor.register("hunter22")
    with redactor.holding(["hunter22"]):
        assert redactor.redact("hunter22") == MASK
    assert redactor.redact("hunter22") == MASK
    redactor.forget("hunter22")
    assert redactor.redact("hunter22") == "hunter22"


def test_scrub_goes_into_every_corner():
    class Odd:
        def __str__(self) -> str:
            return "odd hunter22"

    data = {"hunter22": [1, None, True, ("x hunter22", b"hunter22"), Odd()]}
    assert Redactor(["hunter22"]).scrub(data) == {MASK: [1, None, True, [f"x {MASK}", MASK], f"odd {MASK}"]}


def test_secrets_that_are_not_text():
    redactor = Redactor([b"\x80\x81\x82\x83"])
    assert redactor.redact_bytes(b"a\x80\x81\x82\x83b") == f"a{MASK}b".encode()
    assert redactor.redact("plain") == "plain"


def test_a_secret_split_over_chunks_is_found_and_nothing_else_is_held_back():
    stream = Redactor(["hunter22"]).stream()
    assert stream.feed(b"password: ") == b"password: "
    assert stream.feed(b"hunt") == b""
    assert stream.feed(b"er22") == MASK.encode()
    assert stream.feed(b" ok hun") == b" ok "
    assert stream.finish() == b"hun"


def test_a_stream_without_secrets_passes_everything_on():
    stream = Redactor().stream()
    assert stream.feed(b"abc") + stream.finish() == b"abc"


@settings(max_examples=repetitions(40, soak=5000))
@example(["AAAA"], ["AAAA", ""])
@given(st.lists(small, max_size=4), st.lists(st.text(alphabet="abAB", max_size=7), max_size=12))
def test_streaming_gives_what_the_whole_would(secrets, chunks):
    redactor = Redactor(secrets)
    stream = redactor.stream()
    streamed = b"".join(stream.feed(chunk.encode()) for chunk in chunks) + stream.finish()
    assert streamed == redactor.redact_bytes("".join(chunks).encode())
    assert stream.replacements == streamed.count(MASK.encode())


@given(st.lists(small, min_size=1, max_size=4), st.text(alphabet="abAB", max_size=40))
def test_no_secret_survives(secrets, text):
    redacted = Redactor(secrets).redact(text)
    assert not any(secret in redacted.replace(MASK, "|") for secret in secrets)


@given(
    st.lists(small, min_size=1, max_size=6), st.text(alphabet="abAB", max_size=40), st.text(alphabet="abAB", max_size=3)
)
@example(["abcde"], "abcd", "")
@example(["aaab", "aaabbbb"], "aaabb", "b")
def test_what_is_covered_is_what_is_there(secrets, text, more):
    text += more
    covered = [False] * len(text)
    for secret in secrets:
        for start in range(len(text)):
            if text.startswith(secret, start):
                covered[start : start + len(secret)] = [True] * len(secret)
    outside = "".join(letter for letter, hidden in zip(text, covered, strict=True) if not hidden)
    assert Redactor(secrets).redact(text).replace(MASK, "") == outside


def test_a_long_secret_is_found_whole_in_pieces_and_by_its_lines():
    lines = [f"line {number:06} of a bundle" for number in range(1000)]
    secret = "\n".join(lines)
    assert len(secret) > 3 * PIECE
    redactor = Redactor([secret])
    for shown in (secret, base64.b64encode(secret.encode()).decode(), f"{lines[17]} {lines[999]}"):
        assert redactor.redact(f"<{shown}>").replace(MASK, "").strip("<> \n") == ""
    stream = redactor.stream()
    cut = b"".join(stream.feed(secret[at : at + 999].encode()) for at in range(0, len(secret), 999)) + stream.finish()
    assert cut.replace(MASK.encode(), b"").strip() == b""


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        (["a" * 300_000 + "b"], b"a" * 99_999 + b"c"),
        (["a" * 20_000], b"a" * 100_000),
        (["a" * length + "A" for length in range(8, 1000)], b"a" * 100_000),
    ],
    ids=["almost", "again and again", "many alike"],
)
def test_what_would_take_too_long_to_look_through_is_not_shown(secrets, said):
    stream = Redactor(secrets).stream()
    shown = stream.feed(said) + stream.finish()
    assert shown.endswith(MASK.encode())
    assert len(shown) < len(said) / 2


def test_two_hold_nothing_in_one_scope():
    redactor = Redactor()
    with redactor.holding([], "one"):
        with redactor.holding([], "one"):
            pass
        with redactor.holding(["hunter22"], "one"):
            assert redactor.redact("hunter22", "one") == MASK


def test_secrets_of_one_scope_blank_nothing_in_another():
    redactor = Redactor(["everywhere"])
    with redactor.holding(["Completed"], "hostile") as own:
        assert redactor.redact("Completed everywhere", "other") == f"Completed {MASK}"
        assert redactor.redact("Completed everywhere", "hostile") == f"{MASK} {MASK}"
        assert redactor.redact("Completed everywhere") == f"{MASK} {MASK}"
        assert own.redact("Completed everywhere") == f"{MASK} everywhere"
    assert redactor.scrub(["Completed"], "hostile") == ["Completed"]


@pytest.mark.parametrize(
    ("secrets", "what"),
    [
        ([str(number) for number in range(MOST_VALUES + 1)], "values"),
        (["x" * (MOST_BYTES + 1)], "bytes"),
        (["x\n" * (MOST_LINES + 1) + "x"], "lines"),
    ],
)
def test_more_secrets_than_can_be_looked_for_are_too_many(secrets, what):
    assert f" {what} of Secrets" in (excess(secrets) or "")


def test_a_secret_with_and_without_its_line_end_counts_once():
    assert excess(["x" * MOST_BYTES, "x" * MOST_BYTES + "\n"]) is None
