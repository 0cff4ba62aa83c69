"""A real object store for tests: OpenStack Swift with its S3 API."""

from __future__ import annotations

import datetime
import importlib.util
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import obstore
from obstore.store import S3Store as Client

from engines import Authority
from parts import require
from ports import free_port
from remit.execution.artifacts.s3.location import S3Location
from servers import Server

_SERVER = Path(__file__).with_name("swiftserver.py")
SECRET = "testing"
NO_GRACE = -60.0
"""Seconds. Negative, because the times of a store are whole seconds and may be rounded up."""


@dataclass
class Swift:
    server: Server
    tls_port: int
    authority: Path
    credentials: Path
    guest: Path
    """Credentials of a user without permissions."""
    _buckets: Iterator[int] = field(default_factory=itertools.count)

    def bucket(self) -> S3Location:
        """Creates a new bucket."""
        where = S3Location(
            f"bucket-{next(self._buckets)}",
            "some/prefix",
            f"http://{self.server.host}:{self.server.port}",
            credentials=self.credentials,
        )
        self._make(where)
        return where

    def encrypted(self, where: S3Location) -> S3Location:
        return replace(where, endpoint=f"https://{self.server.host}:{self.tls_port}", ca_file=self.authority)

    def client(self, where: S3Location) -> Client:
        """Returns a client for the whole bucket, for requests that Remit does not make."""
        return Client(
            where.bucket,
            config={
                "endpoint": where.endpoint,
                "region": "us-east-1",
                "access_key_id": "test:tester",
                "secret_access_key": SECRET,
                "virtual_hosted_style_request": False,
            },
            client_options={"allow_http": True},
        )

    def _make(self, where: S3Location) -> None:
        url = obstore.sign(self.client(where), "PUT", [""], datetime.timedelta(minutes=1))[0]
        httpx.put(url).raise_for_status()


@contextmanager
def swift(folder: Path, host: str = "127.0.0.1") -> Iterator[Swift]:
    """Starts the store. `host` is the address of this machine on which it listens."""
    require("swift", importlib.util.find_spec("swift"), "pip install -e '.[test]' brings OpenStack Swift on Linux")
    authority = Authority()
    certificate, trusted = folder / "server.pem", folder / "authority.pem"
    made = authority.secret("store", host)
    certificate.write_bytes(made["tls.crt"] + made["tls.key"])
    trusted.write_bytes(made["ca.crt"])
    users = {"owner": ("test:tester", SECRET), "guest": ("test:guest", "guesting")}
    for name, (key, secret) in users.items():
        (folder / name).mkdir()
        (folder / name / "access-key-id").write_text(f"{key}\n")
        (folder / name / "secret-access-key").write_text(secret)
    port, tls_port = free_port(), free_port()
    argv = [sys.executable, str(_SERVER), str(folder / "data"), host, str(port), str(tls_port), str(certificate)]
    server = Server(argv, port, folder / "log", announces="ready", host=host)
    server.start()
    try:
        yield Swift(server, tls_port, trusted, folder / "owner", folder / "guest")
    finally:
        server.stop()


def keys(swift: Swift, where: S3Location) -> set[str]:
    """Returns all keys of the bucket below its prefix."""
    found = obstore.list(swift.client(where)).collect()
    return {each["path"].removeprefix(f"{where.prefix}/") for each in found}
