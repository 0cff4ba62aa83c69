from __future__ import annotations

from collections.abc import Iterator

import pytest

from parts import require
from remit.sandbox import Layer, probe_host
from remitup import RemitUp

SHELL = """
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: tests}
spec:
  selector: {matchExpressions: [{key: unselected, operator: DoesNotExist}]}
  commands:
    allow:
      - {executable: sh, args: [-c, '(?s).*']}
      - {executable: bash, args: [-c, '(?s).*']}
      - {executable: cat}
      - {executable: no-such-program}
  environment: {allow: [WHO]}
  volumes: {artifacts: {}}
  networks: [none, host]
"""


@pytest.fixture(scope="session")
def sandbox() -> None:
    ability = probe_host().abilities[Layer.NAMESPACES]
    require("bwrap", ability.available, ability.remedy)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, kubectl: str, sandbox: None) -> Iterator[RemitUp]:
    """`remit up` for the tests of one file, with a policy that allows a shell."""
    with RemitUp(tmp_path_factory.mktemp("up") / "state", kubectl) as running:
        running.kubectl("apply", "-f", "-", stdin=SHELL)
        yield running


@pytest.fixture
def own_up(tmp_path_factory: pytest.TempPathFactory, kubectl: str, sandbox: None) -> Iterator[RemitUp]:
    """`remit up` for one test alone, which may kill it."""
    with RemitUp(tmp_path_factory.mktemp("own") / "state", kubectl) as running:
        running.kubectl("apply", "-f", "-", stdin=SHELL)
        yield running
