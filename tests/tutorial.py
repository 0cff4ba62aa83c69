"""Runs docs/tutorial.md as a script: its files and its commands, in order.

`python tests/tutorial.py` runs it and writes what the commands print into the page.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import parts
from ports import free_port
from remitup import RemitUp

PAGE = Path(__file__).parents[1] / "docs/tutorial.md"
PORTS = ("8080", "8081")
"""The ports on the page. The script uses others, because these may be in use."""
SHOP = "/home/me/shop"
"""The folder on the page."""
_STEP = re.compile(
    r"<!-- file: (?P<file>\S+) -->\n```yaml\n(?P<text>.*?)```|<!-- tested -->\n```console\n(?P<shown>.*?)```", re.S
)


def played(page: str, folder: Path, kubectl: str) -> str:
    """Returns the page with the output that its commands have here. They run in a folder `shop` below `folder`."""
    shop = folder / "shop"
    shop.mkdir()
    own = {port: str(free_port()) for port in PORTS}
    shown = {theirs: port for port, theirs in own.items()} | {str(shop): SHOP}
    with RemitUp(folder / "state", kubectl) as up:
        run = up.shell(shop)

        def step(match: re.Match[str]) -> str:
            if match["file"]:
                (shop / match["file"]).write_text(_with(match["text"], own))
                return match[0]
            printed = "".join(
                f"$ {command}\n{_with(run(_with(command, own)), shown)}"
                for command in re.findall(r"^\$ (.*)$", match["shown"], re.M)
            )
            return f"<!-- tested -->\n```console\n{printed}```"

        return _STEP.sub(step, page)


def _with(text: str, instead: dict[str, str]) -> str:
    for old, new in instead.items():
        text = text.replace(old, new)
    return text


if __name__ == "__main__":
    found = parts.kubectl()
    assert found
    with tempfile.TemporaryDirectory(prefix="remit-tutorial-") as place:
        PAGE.write_text(played(PAGE.read_text(), Path(place), found))
