"""Views are imported when they are first looked at."""

from __future__ import annotations

import inspect
import subprocess
import sys

from remit.web import pages

HEAVY = ("remit.api.deployment", "remit.api.executiontask", "remit.policy.compile", "remit.controllers", "pydantic")
PROGRAM = """
import sys
import remit.web.server
import remit.web.pages.overview
print(*sys.modules)
"""


async def test_every_function_is_where_its_name_says() -> None:
    names = [name for _, name, _ in pages.VIEWS]
    names += [events for _, _, events in pages.VIEWS if events]
    names += [name for _, name in (*pages.ACTIONS, *pages.DOWNLOADS, *pages.FORMS)]
    for name in names:
        function = await pages.imported(name)
        assert list(inspect.signature(function).parameters) == ["request", "session"], name


def test_the_overview_is_shown_without_the_models() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert set(HEAVY) & set(done.stdout.split()) == set()


async def test_all_views_are_imported_in_the_background() -> None:
    await pages.import_all()
    assert {f"remit.web.pages.{name.partition('.')[0]}" for _, name, _ in pages.VIEWS} <= sys.modules.keys()
