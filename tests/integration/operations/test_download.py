"""Tests files whose content comes from an HTTP address: both the path and the address must be allowed."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from remit.backends.failure import OperationFailed
from remit.errors import PolicyDenied
from remit.operations.file.executor import FileExecutor
from remit.operations.http.executor import HttpExecutor
from remit.policy.limits import Limits

from .conftest import Desk
from .httpserver import Server, serving


@dataclass
class Names:
    answers: dict[str, list[str]] = field(default_factory=dict)

    async def __call__(self, host: str, port: int) -> list[Any]:
        return [ipaddress.ip_address(address) for address in self.answers.get(host, ["127.0.0.1"])]


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture
def desk(folder: Path, server: Server, names: Names) -> Desk:
    policy = {
        "files": {"allow": [{"paths": [f"{folder}/**"], "operations": ["create", "write", "append"]}]},
        "http": {"allow": [{"hosts": ["api.test"], "ports": [server.port], "addresses": ["127.0.0.0/8"]}]},
    }
    return Desk(FileExecutor([], HttpExecutor(names).download), [policy])


async def fetch(desk: Desk, server: Server, to: Path, path: str = "/", host: str = "api.test", **rest: Any) -> str:
    url = f"http://{host}:{server.port}{path}"
    return await desk.do(file={"operation": "write", "path": str(to), "contentFrom": {"url": url}, **rest})


async def test_what_an_address_holds_is_in_the_file(desk: Desk, server: Server, folder: Path) -> None:
    await fetch(desk, server, folder / "a", "/big?bytes=3000000")
    assert (folder / "a").read_bytes() == b"x" * 3_000_000
    await fetch(desk, server, folder / "b", f"/redirect?to=http://api.test:{server.port}/c")
    assert (folder / "b").read_text() == "GET /c"


async def test_both_rules_are_asked(desk: Desk, server: Server, folder: Path) -> None:
    with pytest.raises(PolicyDenied, match=r"files.allow"):
        await fetch(desk, server, folder.parent / "outside")
    with pytest.raises(PolicyDenied, match=r"spec.file.contentFrom.url: .*evil.test"):
        await fetch(desk, server, folder / "a", host="evil.test")
    del desk.policies[0]["http"]
    with pytest.raises(PolicyDenied, match=r"spec.file.contentFrom.url"):
        await fetch(desk, server, folder / "a")
    assert server.seen == []
    assert list(folder.iterdir()) == []


async def test_a_name_that_leads_inwards_and_a_redirect_elsewhere(
    desk: Desk, server: Server, folder: Path, names: Names
) -> None:
    with pytest.raises(PolicyDenied):
        await fetch(desk, server, folder / "a", f"/redirect?to=http://evil.test:{server.port}/c")
    names.answers["api.test"] = ["169.254.169.254"]
    with pytest.raises(PolicyDenied):
        await fetch(desk, server, folder / "a")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/status?code=404", "UnexpectedStatus"), ("/cut", "ConnectionLost"), ("/loop", "TooManyRedirects")],
)
async def test_what_fails_leaves_the_old_file(desk: Desk, server: Server, folder: Path, path: str, reason: str) -> None:
    (folder / "a").write_text("old")
    with pytest.raises(OperationFailed) as caught:
        await fetch(desk, server, folder / "a", path)
    assert caught.value.reason == reason
    assert [item.name for item in folder.iterdir()] == ["a"]
    assert (folder / "a").read_text() == "old"


async def test_a_body_without_end_is_cut_off(desk: Desk, server: Server, folder: Path) -> None:
    desk.limits = Limits(file_size=1_000_000)
    with pytest.raises(OperationFailed):
        await fetch(desk, server, folder / "a", "/endless")
    assert list(folder.iterdir()) == []


async def test_cancelled_in_mid_download(desk: Desk, server: Server, folder: Path) -> None:
    doing = asyncio.ensure_future(fetch(desk, server, folder / "a", "/slow"))
    async with asyncio.timeout(30):
        while not server.seen:
            await asyncio.sleep(0.01)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    assert list(folder.iterdir()) == []
