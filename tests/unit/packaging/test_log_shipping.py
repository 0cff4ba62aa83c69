"""Tests the examples for Fluent Bit and Loki: they read the files that Remit writes, and parse their times."""

from __future__ import annotations

import datetime
import fnmatch
import logging
from pathlib import Path
from typing import Any

import orjson
import yaml

from remit.execution.output import OutputWriter
from remit.execution.store import RunStore
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import AuditEvent
from remit.telemetry.logfile import LogFile
from remit.telemetry.logs import configure, get_logger

FOLDER = Path(__file__).parents[3] / "docs" / "logging"
FLUENT_BIT = yaml.safe_load((FOLDER / "fluent-bit.yaml").read_text())
LOKI = yaml.safe_load((FOLDER / "loki.yaml").read_text())
STATE = "/var/lib/remit"


def inputs() -> dict[str, dict[str, Any]]:
    return {each["tag"].removeprefix("remit."): each for each in FLUENT_BIT["pipeline"]["inputs"]}


def parsed(name: str, line: bytes) -> datetime.datetime:
    """Returns the time that the parser `name` finds in a line. `%L` is Fluent Bit's fraction of a second."""
    (parser,) = (each for each in FLUENT_BIT["parsers"] if each["name"] == name)
    assert parser["format"] == "json"
    text = orjson.loads(line)[parser["time_key"]]
    return datetime.datetime.strptime(text, parser["time_format"].replace("%L", "%f"))


def is_now(moment: datetime.datetime) -> bool:
    return abs(datetime.datetime.now(datetime.UTC) - moment) < datetime.timedelta(minutes=10)


def test_every_input_has_its_own_position_and_a_parser_that_exists() -> None:
    known = {each["name"] for each in FLUENT_BIT["parsers"]}
    found = inputs()
    assert set(found) == {"operator", "audit", "output"}
    assert len({each["db"] for each in found.values()}) == len(found)
    assert {each["parser"] for each in found.values() if "parser" in each} <= known
    assert all(each["name"] == "tail" for each in found.values())


def test_the_operators_log_is_parsed(tmp_path: Path) -> None:
    log, root = LogFile(tmp_path / "remit.log"), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure(stream=log)  # type: ignore[arg-type]
        get_logger("remit").info("here")
    finally:
        root.handlers[:], root.level = handlers, level
        log.close()
    assert is_now(parsed(inputs()["operator"]["parser"], (tmp_path / "remit.log").read_bytes()))


def test_the_audit_trail_is_parsed(tmp_path: Path) -> None:
    path = inputs()["audit"]["path"]
    assert path == f"{STATE}/audit/audit.jsonl"
    with AuditLog(tmp_path / "audit.jsonl") as audit:
        audit.append(AuditEvent(kind="decision"))
    assert is_now(parsed(inputs()["audit"]["parser"], (tmp_path / "audit.jsonl").read_bytes()))


def shipped(state: Path) -> set[str]:
    told = inputs()["output"]
    found: set[str] = set()
    for pattern in told["path"].split(","):
        found |= {str(path.relative_to(state)) for path in state.glob(pattern.removeprefix(f"{STATE}/"))}
    return {path for path in found if not fnmatch.fnmatch(path, told["exclude_path"])}


def test_all_output_is_shipped_but_raw_output(tmp_path: Path) -> None:
    for name, raw in (("usual", False), ("raw", True)):
        run = RunStore(tmp_path / "runs").open("data", name, f"{name}-1")
        writer = OutputWriter(run.path, max_bytes=100, tail_bytes=0, raw=raw)
        writer.write("stdout", b"x" * 500)
        writer.write("stderr", b"x")
        writer.close()
        run.started({"pid": 1})
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("runs/data/usual/*/std*")}
    output = {path for path in written if not path.endswith(".times")}
    assert len(output) > 3
    assert shipped(tmp_path) == output


def test_what_is_shipped_goes_where_loki_listens() -> None:
    (output,) = FLUENT_BIT["pipeline"]["outputs"]
    server = LOKI["server"]
    assert (output["name"], output["match"]) == ("loki", "remit.*")
    assert (output["host"], output["port"]) == (server["http_listen_address"], server["http_listen_port"])
    assert LOKI["compactor"]["retention_enabled"] is True
