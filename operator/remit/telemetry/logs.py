"""Structured logs: one event a line, for machines (JSON) or for people (console), with secrets redacted.

Remit's own events and those of kopf, aiohttp and every other user of the standard library's `logging` take the same way
out. Control characters are escaped, so that nothing a task is named or prints can forge an event or drive a terminal.
In the console form a traceback follows its event, each line behind a bar.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, TextIO

import orjson
import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from remit.errors import InvalidInput
from remit.telemetry.redact import Redactor

Format = Literal["auto", "json", "console"]
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_OURS: Final = frozenset({"level", "timestamp"})
_FIRST: Final = ("timestamp", "level", "logger", "message")
_QUIET: Final = {"aiohttp.access": "warning", "asyncio": "warning", "docker": "info", "urllib3": "info"}

# Characters that a terminal, a pager or a log shipper may interpret as a command or as the end of a line: controls,
# line and paragraph separators, and marks that reorder text.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def configure(
    *,
    format: Format = "auto",
    level: str = "info",
    levels: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
    colors: bool | None = None,
    redactor: Redactor | None = None,
) -> Redactor:
    """Send every log of this process to `stream` (standard error), at `level` or worse.

    `auto` is console on a terminal and JSON elsewhere. `levels` sets single loggers by name. `colors`: whether the
    console form is coloured; None: on a terminal. Returns the redactor in use, with which secrets are registered.
    Raises `InvalidInput` for a level or format that does not exist.
    """
    out = stream or sys.stderr
    form = form_for(out) if format == "auto" else format
    if form not in {"json", "console"}:
        raise InvalidInput(f"{form!r} is not a log format; use auto, json or console", field="format")
    redactor = redactor or Redactor()
    to_json: list[Processor] = [structlog.processors.EventRenamer("message"), _render_json]
    to_console: list[Processor] = [
        _bar_tracebacks,
        structlog.dev.ConsoleRenderer(
            colors=out.isatty() if colors is None else colors, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(allow={"k8s_ref"}), _name_object, *_shared()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _redacting(redactor),
            *(to_json if form == "json" else to_console),
        ],
    )
    handler = _Handler(out)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_number(level))
    for name, own_level in {**_QUIET, **(levels or {})}.items():
        logging.getLogger(name).setLevel(max(_number(own_level), root.level) if name in _QUIET else _number(own_level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return redactor


def form_for(stream: TextIO) -> Literal["json", "console"]:
    """Resolve the form `auto` for this stream."""
    return "console" if stream.isatty() else "json"


@functools.cache
def embedded() -> Redactor:
    """Set up logging for a program that uses Remit as a library, and return the redactor of all that it logs.

    Unless the program has set structlog up itself, events go to the standard library's loggers, with secrets redacted.
    Left alone, structlog would print them on standard output, with the local variables of each frame of a traceback.
    """
    redactor = Redactor()
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.processors.format_exc_info,
                _redacting(redactor),
                structlog.processors.KeyValueRenderer(key_order=["event"]),
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=False,
        )
    return redactor


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger: `log.info("attempt started", pid=4711)`. Events are constant phrases; what varies goes in fields."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def bound(**ids: str | int) -> AbstractContextManager[object]:
    """Put `ids`, such as `task` and `attempt`, on every event of this context, those of libraries included."""
    return structlog.contextvars.bound_contextvars(**ids)


def escape(text: str) -> str:
    r"""`text` on one line that no terminal obeys: control and reordering characters as `\n`, `\x1b`, `\u2028`."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the standard library's name)
        """An event that cannot be formatted is told about without its arguments: they were not redacted yet."""
        error = type(sys.exc_info()[1]).__name__
        line = {"level": "error", "logger": record.name, "message": "an event could not be logged", "error": error}
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(orjson.dumps(line).decode() + self.terminator)


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _number(level: str) -> int:
    if level.lower() not in LEVELS:
        raise InvalidInput(f"{level!r} is not a log level; use one of {', '.join(LEVELS)}", field="level")
    return int(logging.getLevelNamesMapping()[level.upper()])


def _name_object(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """kopf says which object an event is about in its own field; give it ours."""
    reference = event.pop("k8s_ref", None)
    if isinstance(reference, Mapping):
        event["object"] = f"{reference.get('kind', '')} {reference.get('namespace') or ''}/{reference.get('name', '')}"
    return event


def _redacting(redactor: Redactor) -> Processor:
    def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: value if key in _OURS else redactor.scrub(value) for key, value in event.items()}

    return redact


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    event = {key: event[key] for key in _FIRST if key in event} | dict(event)
    try:
        line = orjson.dumps(event).decode()
    except TypeError:  # a lone surrogate or an integer beyond 64 bits
        line = orjson.dumps(_plain(event)).decode()
    # JSON has escaped the first 32 characters; the others can occur only inside strings.
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _bar_tracebacks(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    traceback = event.pop("exception", None)
    line: EventDict = {escape(key): escape(v) if isinstance(v, str) else _escaped(v) for key, v in event.items()}
    if traceback:
        line["exception"] = "\n".join("  | " + escape(row) for row in str(traceback).splitlines())
    return line


def _escaped(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float) else escape(str(value))
