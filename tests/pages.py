"""A client of the page of `remit up`, without a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from remitup import RemitUp, until

TIMEOUT = 60.0


@dataclass(frozen=True)
class Looker:
    """A session. Use `get` and `post` with the paths of views."""

    client: httpx.Client
    origin: str
    base: str
    """Path prefix of the views."""

    def to(self, path: str) -> str:
        """Returns the address by which the page links to a view."""
        return self.base + path

    def outside(self, path: str) -> httpx.Response:
        """Returns the response for a path that is not below the prefix."""
        return self.client.get(self.origin + path)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers=headers)

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Sends a POST request like the page's own forms."""
        return self.client.post(path, data=fields, headers={"Origin": self.origin})

    @contextmanager
    def live(self, path: str) -> Iterator[Iterator[tuple[str, Any]]]:
        """Yields the events of a stream of the page."""
        with self.client.stream("GET", f"/live{path}") as answer:
            assert answer.status_code == 200, answer.status_code
            yield _events(answer)


def _events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def regions(events: Iterator[tuple[str, Any]], *words: str) -> None:
    """Waits until the received regions contain all of these words."""
    seen = ""
    while not all(word in seen for word in words):
        name, data = next(events)
        seen += data["html"] if name == "region" else ""


def region(events: Iterator[tuple[str, Any]], called: str, pattern: str) -> None:
    """Waits until the named region matches the pattern."""
    for name, data in events:
        if name == "region" and data["name"] == called and re.search(pattern, data["html"]):
            return
    raise AssertionError(f"the stream ended before {called} was like {pattern!r}")


def login_link(up: RemitUp) -> str:
    done = up.remit_here("page", "--state-dir", str(up.state_dir))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def looking(up: RemitUp) -> Iterator[Looker]:
    """Yields a session that is logged in."""
    with logged_in(login_link(up)) as looker:
        yield looker


@contextmanager
def logged_in(link: str) -> Iterator[Looker]:
    """Logs in with the link, after the server has read the state."""
    origin = link.partition("/login")[0]
    with httpx.Client(base_url=origin, timeout=TIMEOUT, trust_env=False) as client:
        answer = client.get(link)
        assert answer.status_code == 303, answer.text
        base = answer.headers["Location"].removesuffix("/")
        assert re.fullmatch(r"/s-[\w-]{22}", base)
        client.base_url = httpx.URL(origin + base)
        until(lambda: "Still reading" not in client.get("/").text, "the caches")
        yield Looker(client, origin, base)
