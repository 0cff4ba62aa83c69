"""Keeps whole reports in private files below the operator's state directory."""

from __future__ import annotations

import contextlib
import datetime
import re
import shutil
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Final, Literal

import orjson
from pydantic import TypeAdapter

from remit.privatefiles import write_private
from remit.release.report.markdown import markdown
from remit.release.report.model import Report
from remit.release.report.page import page

Form = Literal["md", "html", "json"]
_NAME: Final = re.compile(r"revision-([0-9]+)\.(md|html|json)")


def of(state_dir: Path, namespace: str, name: str) -> Path:
    """The folder with the reports of one Deployment."""
    return state_dir / "reports" / namespace / name


def file(where: Path, revision: int, form: Form) -> Path:
    """The report of the last release of that revision."""
    return where / f"revision-{revision}.{form}"


def write(where: Path, report: Report) -> Path:
    """Write all three forms; gives the page's path. Raises OSError."""
    forms: dict[Form, bytes] = {
        "json": orjson.dumps(document(report), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        "md": markdown(report).encode(),
        "html": page(report).encode(),
    }
    for each in (where.parent.parent, where.parent, where):
        # Mkdir applies the mode only to the last folder, so each parent is created separately.
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    for form, content in forms.items():
        write_private(file(where, report.revision, form), content)
    return file(where, report.revision, "html")


def document(report: Report) -> dict[str, object]:
    """The report as data: the dataclasses as they are, and what follows from them."""
    shown: dict[str, object] = orjson.loads(orjson.dumps(report))
    return {**shown, "seconds": report.seconds, "switch_milliseconds": report.switch_milliseconds}


def read(where: Path, revision: int) -> Report:
    """Read a report that `write` wrote. Raises OSError, and ValueError for one that this version cannot read."""
    return _adapter().validate_json(file(where, revision, "json").read_bytes())


@cache
def _adapter() -> TypeAdapter[Report]:
    """Made on first use: operators only write reports."""
    return TypeAdapter(Report)


def belongs(where: Path, revision: int, uid: str, started_at: datetime.datetime | None) -> bool:
    """Whether the report there can be read and is of this release of this Deployment."""
    try:
        found = orjson.loads(file(where, revision, "json").read_bytes())
        began = datetime.datetime.fromisoformat(found["started_at"])
        return bool(found["subject"]["uid"] == uid and began == started_at)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def keep(where: Path, revisions: Collection[int]) -> None:
    """Remove the reports of all other revisions."""
    for path in where.glob("revision-*"):
        found = _NAME.fullmatch(path.name)
        if found and int(found[1]) not in revisions:
            path.unlink(missing_ok=True)


def clear(where: Path) -> None:
    """Remove all of one Deployment, and the folder of its namespace with the last one."""
    shutil.rmtree(where, ignore_errors=True)
    with contextlib.suppress(OSError):
        where.parent.rmdir()
