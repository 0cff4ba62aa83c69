"""Reports of releases on processes, through a whole operator."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

from remit.reconcilers.kube import DEPLOYMENTS

from .test_releases import Shop, shop  # noqa: F401  (a fixture)
from .conftest import World
