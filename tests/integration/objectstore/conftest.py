"""Provides a separate bucket for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from objectstores import NO_GRACE, Swift
from remit.execution.artifacts.s3.bucket import Bucket
from remit.execution.artifacts.s3.location import S3Location
from remit.execution.artifacts.s3.store import S3Store


@pytest.fixture
def where(swift: Swift) -> S3Location:
    return swift.bucket()


@pytest.fixture
def store(where: S3Location, tmp_path: Path) -> S3Store:
    return S3Store(Bucket(where), tmp_path / "first", grace_seconds=NO_GRACE)
