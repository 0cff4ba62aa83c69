import io
import json
import logging
import warnings

import pytest
import structlog

from remit.errors import InvalidInput
from remit.telemetry.logs import bound, configure, escape, get_logger
from remit.telemetry.redact import MASK, Redactor


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def stream():
    return io.StringIO()


def events(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_the_ids_bound_to_it(stream):
    configure(format="json", stream=stream)
    with bound(task="data/dump", attempt=2):
        get_logger("remit.execution").info("attempt started", pid=4711)
    get_logger("remit.execution").info("idle")
    first, second = events(stream)
    assert list(first)[:4] == ["timestamp", "level", "logger", "message"]
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "message": "attempt started",
        "level": "info",
        "logger": "remit.execution",
        "task": "data/dump",
        "attempt": 2,
        "pid": 4711,
    }
    assert "task" not in second


def test_standard_library_loggers_take_the_same_way(stream):
    configure(format="json", stream=stream, redactor=Redactor(["hunter22"]))
    reference = {"kind": "ExecutionTask", "namespace": "data", "name": "dump", "uid": "1"}
    with bound(task="data/dump"):
        logging.getLogger("kopf.objects").warning("login with %s", "hunter22", extra={"k8s_ref": reference})
    (event,) = events(stream)
    assert event["message"] == f"login with {MASK}"
    assert (event["object"], event["task"], event["logger"]) == ("ExecutionTask data/dump", "data/dump", "kopf.objects")


@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_are_redacted_in_every_field_and_in_tracebacks(stream, form):
    redactor = configure(format=form, stream=stream)
    redactor.register("hunter22")
    log = get_logger("remit")
    try:
        raise ValueError("no login with hunter22")
    except ValueError:
        log.exception(
            "failed for hunter22", nested={"argv": ["-p", "hunter22"]}, raw=b"hunter22", error=KeyError("hunter22")
        )
    assert "hunter22" not in stream.getvalue()
    assert stream.getvalue().count(MASK) >= 5
    assert "Traceback" in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("char", ["\n", "\r", "\x1b", "\x7f", "\x9b", "\u2028", "\u202e", "\x00", "\ud800", "\x85"])
def test_no_text_can_forge_an_event_or_control_a_terminal(stream, form, char):
    configure(format=form, stream=stream)
    get_logger("remit").info(f"a{char}b", field=f"c{char}d", **{f"key{char}": 1})
    logging.getLogger("aiohttp").info("e%sf", char)
    assert char not in stream.getvalue().replace("\n", "", 2 if char == "\n" else 0)
    assert stream.getvalue().count("\n") == 2
    if form == "json" and char != "\ud800":
        assert events(stream)[0]["field"] == f"c{char}d"


def test_a_traceback_cannot_be_taken_for_events(stream):
    configure(format="console", stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            raise ValueError("x\n2026-01-01T00:00:00Z [info] forged")
        except ValueError:
            get_logger("remit").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert "failed" in first
    assert rest
    assert all(line.startswith("  | ") for line in rest)


def test_json_takes_numbers_and_text_that_json_cannot(stream):
    configure(format="json", stream=stream)
    get_logger("remit").info("odd", big=2**70, broken="\udcff", flag=True)
    (event,) = events(stream)
    assert (event["big"], event["broken"], event["flag"]) == (str(2**70), "\\udcff", True)


def test_levels(stream):
    configure(format="json", level="warning", levels={"kopf": "error"}, stream=stream)
    get_logger("remit").info("too quiet")
    get_logger("remit").warning("heard")
    logging.getLogger("kopf").warning("turned down")
    assert [event["message"] for event in events(stream)] == ["heard"]


def test_auto_is_json_where_there_is_no_terminal(stream):
    configure(stream=stream)
    get_logger("remit").info("x")
    assert events(stream)


def test_auto_is_console_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    configure(stream=stream)
    get_logger("remit").info("hello")
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_a_wrong_level_or_format_is_reported():
    with pytest.raises(InvalidInput, match="level: 'loud' is not a log level; use one of debug"):
        configure(level="loud")
    with pytest.raises(InvalidInput, match="format: 'xml' is not a log format"):
        configure(format="xml")


def test_escape_keeps_what_is_harmless():
    assert escape("naïve → 日本\t\x1b[31m") == "naïve → 日本\\t\\x1b[31m"


def test_an_event_that_cannot_be_formatted_leaks_nothing(stream, capsys):
    configure(format="json", stream=stream)
    logging.getLogger("careless").warning("%d logins", "hunter22")
    (event,) = events(stream)
    assert event == {
        "level": "error",
        "logger": "careless",
        "message": "an event could not be logged",
        "error": "TypeError",
    }
    assert "hunter22" not in "".join(capsys.readouterr())
