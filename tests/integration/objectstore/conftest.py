"""An object store for the tests of a worker, and a bucket of its own for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import objectstores
from objectstores import Swift
from remit.execution.artifacts.s3.bucket import Bucket
from remit.execution.artifacts.s3.location import S3Location
from remit.execution.artifacts.s3.store import S3Store


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    with objectstores.swift(tmp_path_factory.mktemp("swift")) as running:
        yield running


@pytest.fixture
def where(swift: Swift) -> S3Location:
    return swift.bucket()


@pytest.fixture
def store(where: S3Location, tmp_path: Path) -> S3Store:
    return S3Store(Bucket(where), tmp_path / "first", grace_seconds=0)
