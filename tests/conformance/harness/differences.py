"""Where the embedded control plane answers otherwise than kube-apiserver, on purpose, and why.

docs/control-plane.md tells users the same. A difference that is declared here and no longer seen fails its scenario:
delete it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """`where` is a regular expression that is searched in lines such as `GET /version body.gitVersion`."""

    scenario: str
    where: str
    reason: str

    def covers(self, line: str) -> bool:
        return re.search(self.where, line) is not None


DECLARED: tuple[Difference, ...] = ()
