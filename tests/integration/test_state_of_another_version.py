"""Tests state directories of a later version: they are refused with a message, and left unchanged."""

from __future__ import annotations

import hashlib
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from remit.agent.folder import Folder
from remit.controllers.operator import running_operator
from remit.controllers.settings import Settings
from remit.controlplane.server import ControlPlane
from remit.controlplane.storage.journal import FORMAT
from remit.errors import InvalidInput, ResourceError
from remit.kube.access import Access
from remit.stateformat import STATE_FORMAT, check_state_format
from remit.telemetry.redact import Redactor
from remitup import RemitUp

LATER = f"has format {STATE_FORMAT + 1}, and this version of Remit reads {STATE_FORMAT} at most; use the version"


def contents(folder: Path, *but: str) -> dict[str, str]:
    """Returns a digest of every file with its mode."""
    return {
        str(path.relative_to(folder)): f"{stat.S_IMODE(path.stat().st_mode):o} "
        + hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in but
    }


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """Provides the state directory of an operator that is two versions ahead."""
    state = tmp_path / "state"
    (state / "runs/default/uid/attempt").mkdir(parents=True, mode=0o700)
    (state / "runs/default/uid/attempt/run.json").write_text('{"cgroups": ["a shape of its own"]}')
    (state / "audit").mkdir(mode=0o700)
    (state / "audit/audit.jsonl").write_text("another encoding")
    (state / "format").write_text(f"{STATE_FORMAT + 1}\n")
    state.chmod(0o700)
    return state


def test_a_directory_without_a_number_gets_one(tmp_path: Path) -> None:
    for _ in range(2):
        check_state_format(tmp_path)
        assert (tmp_path / "format").read_text() == f"{STATE_FORMAT}\n"
        assert stat.S_IMODE((tmp_path / "format").stat().st_mode) == 0o600


@pytest.mark.parametrize("noted", ["", "one", "-1", "1 and more", "\0"])
def test_a_damaged_number_is_refused(tmp_path: Path, noted: str) -> None:
    (tmp_path / "format").write_text(noted)
    with pytest.raises(InvalidInput, match="holds no number; restore the directory"):
        check_state_format(tmp_path)
    assert (tmp_path / "format").read_text() == noted


def test_a_number_of_any_length_is_a_later_one(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("9" * 5000)
    with pytest.raises(InvalidInput, match="has format 999999999, and"):
        check_state_format(tmp_path)


@pytest.mark.parametrize("leader_election", [True, False])
async def test_an_operator_leaves_it_alone(later: Path, leader_election: bool) -> None:
    before = contents(later, "operator.lock")
    settings = Settings(state_dir=later, leader_election=leader_election)
    with pytest.raises(InvalidInput, match=LATER):
        async with running_operator(Access("http://nobody.invalid"), settings, Redactor()):
            pass
    assert contents(later, "operator.lock") == before


def test_remit_up_leaves_it_alone(later: Path, kubectl: str) -> None:
    before = contents(later, "state.lock")
    up = RemitUp(later, kubectl)
    up.begin()
    assert up.process.wait(60) == 1
    assert LATER in up.log.read_text()
    assert "Traceback" not in up.log.read_text()
    assert contents(later, "state.lock") == before


def test_an_agent_leaves_it_alone(later: Path, tmp_path: Path) -> None:
    agents = tmp_path / "agents"
    agents.mkdir(mode=0o700)
    later = later.rename(agents / "agent-0")
    before = contents(later, "lock")
    with pytest.raises(ResourceError, match=LATER):
        Folder(agents)
    assert contents(later, "lock") == before
    (later / "format").unlink()
    Folder(agents).release()
    assert (later / "format").read_text() == f"{STATE_FORMAT}\n"


async def test_a_database_of_a_later_format_is_left_as_it_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "state.db")) as db, db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL)")
        db.execute("INSERT INTO meta VALUES ('format', ?)", (FORMAT + 1,))
        db.execute("CREATE TABLE revisions (of_another TEXT)")
    (tmp_path / "state.db").chmod(0o600)
    before = contents(tmp_path)
    with pytest.raises(InvalidInput, match=rf"state\.db has format {FORMAT + 1}, this Remit reads {FORMAT}; use the"):
        await ControlPlane(tmp_path).start()
    assert contents(tmp_path, "state.lock", "state.mark") == before
