"""Tests object storage that is unavailable or faulty: what is reported, what is kept, and that no secrets are
reported."""

from __future__ import annotations

import datetime
import io
import os
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import obstore
import pytest
from obstore.exceptions import GenericError

from objectstores import NO_GRACE, SECRET, Swift, keys
from ports import free_port
from remit.backends.filetree import DescriptorTree
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import InvalidInput
from remit.execution.artifacts.collecting import WantedArtifact, collector
from remit.execution.artifacts.s3 import bucket
from remit.execution.artifacts.s3.bucket import Bucket
from remit.execution.artifacts.s3.failures import failure
from remit.execution.artifacts.s3.location import S3Location, location
from remit.execution.artifacts.s3.store import S3Store
from remit.execution.artifacts.store import StoreUnavailable
from remit.execution.artifacts.stored import StoredArtifact


def once(where: S3Location, folder: Path) -> S3Store:
    return S3Store(Bucket(where, tries=1), folder, grace_seconds=NO_GRACE)


def wrong_secret(swift: Swift, where: S3Location, folder: Path) -> S3Location:
    (folder / "access-key-id").write_text("test:tester")
    (folder / "secret-access-key").write_text("another-secret")
    return replace(where, credentials=folder)


WRONG: dict[str, tuple[Callable[[Swift, S3Location, Path], S3Location], str, bool]] = {
    "bucket": (lambda swift, where, _: replace(where, bucket="none-such"), "the bucket does not exist; make it", True),
    "secret": (wrong_secret, "the credentials are not accepted.*SignatureDoesNotMatch", True),
    "rights": (
        lambda swift, where, _: replace(where, credentials=swift.guest),
        "allow s3:ListBucket.*AccessDenied",
        True,
    ),
    "authority": (
        lambda swift, where, _: replace(swift.encrypted(where), ca_file=None),
        "its certificate is not trusted; see --s3-ca-file",
        True,
    ),
    "protocol": (
        lambda swift, where, _: replace(where, endpoint=where.endpoint.replace("http:", "https:")),
        "does not speak TLS; correct --s3-endpoint",
        True,
    ),
    "port": (lambda _, where, __: replace(where, endpoint=f"http://127.0.0.1:{free_port()}"), "nothing answers", False),
    "host": (lambda _, where, __: replace(where, endpoint="http://nowhere.invalid"), "its host is not found", False),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors_explain_what_to_do_and_contain_no_secrets(
    swift: Swift, where: S3Location, tmp_path: Path, wrong: str
) -> None:
    change, message, lasting = WRONG[wrong]
    with pytest.raises(StoreUnavailable, match=message) as raised:
        once(change(swift, where, tmp_path), tmp_path / "store").probe()
    assert raised.value.lasting == lasting
    told = "".join(traceback.format_exception(raised.value))
    assert SECRET not in told
    assert "another-secret" not in told


def test_a_store_behind_a_private_authority(swift: Swift, where: S3Location, tmp_path: Path) -> None:
    once(swift.encrypted(where), tmp_path / "store").probe()
    assert keys(swift, where) == set()


class Sts(BaseHTTPRequestHandler):
    """The service that exchanges the token of a service account for credentials on EKS."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.asked.append(self.path + self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        until = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        answer = (
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            f"<AccessKeyId>test:tester</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>"
            f"<SessionToken>token</SessionToken><Expiration>{until}</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: object) -> None:
        pass


def test_a_role_by_web_identity_stands_for_credentials(
    swift: Swift, where: S3Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("signed-by-the-cluster")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(swift.authority.with_name("server.pem"))
    with HTTPServer(("127.0.0.1", 0), Sts) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("SSL_CERT_FILE", str(swift.authority))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/remit")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"https://127.0.0.1:{server.server_port}")
        once(replace(where, credentials=None), tmp_path / "store").probe()
        server.shutdown()
    assert Sts.asked
    assert all("signed-by-the-cluster" in each and "AssumeRoleWithWebIdentity" in each for each in Sts.asked)


def test_words_of_the_store_are_not_repeated() -> None:
    answer = "status code: 403 Forbidden: <Error><Code>{}</Code><Message>key AKIA and secret</Message></Error>"
    for code, words, lasting in (
        ("RequestTimeTooSkewed", "clocks", False),
        ("InvalidAccessKeyId", "credentials are not accepted", True),
        ("PermanentRedirect", "another region", True),
        ("SomethingNew", "may not do that", True),
    ):
        found = failure(answer.format(code))
        assert words in found.what
        assert (found.code, found.lasting) == (code, lasting)
        assert "AKIA" not in found.what
    assert failure("Server returned status code: 503 : <Error><Code>SlowDown</Code>").lasting is False
    assert "no credentials" in failure("Error performing PUT http://169.254.169.254/latest/api/token").what


def test_invalid_credentials(where: S3Location, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="secret-access-key holds no credential"):
        (tmp_path / "access-key-id").write_text("a")
        (tmp_path / "secret-access-key").write_text("\n")
        Bucket(replace(where, credentials=tmp_path))
    with pytest.raises(InvalidInput, match="No such file"):
        Bucket(replace(where, credentials=tmp_path / "none"))


COMPLETED = Outcome(ExitReason.COMPLETED, "completed", 0)


def test_a_long_list_goes_on_where_it_was_broken_off(where: S3Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_LISTED_AT_ONCE", 2)
    lists, broken = obstore.list, list[str | None]()

    def listed(*arguments: Any, offset: str | None, **more: Any) -> Iterator[Any]:
        pages = iter(lists(*arguments, offset=offset, **more))
        yield next(pages)
        if len(broken) < 2:
            broken.append(offset)
            raise GenericError("Connection refused")
        yield from pages

    written = {f"blobs/{number}" for number in range(7)}
    there = Bucket(where, tries=2)
    for key in written:
        there.put(key, b"")
    monkeypatch.setattr(obstore, "list", listed)
    assert [entry.key for entry in there.list("blobs")] == sorted(written)
    assert broken == [None, "blobs/1"]


def test_an_attempt_whose_files_are_not_taken_has_failed_for_that(
    swift: Swift, where: S3Location, tmp_path: Path
) -> None:
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "a").write_bytes(b"a")
    descriptor = os.open(tmp_path / "left", os.O_PATH | os.O_DIRECTORY)
    store = once(replace(where, bucket="none-such"), tmp_path / "store")
    staged: list[object] = []
    collect = collector(store, staged.append, [WantedArtifact("files", "/workspace/a", 100)], [])
    outcome = collect(DescriptorTree({"/workspace": descriptor}), COMPLETED)
    os.close(descriptor)
    assert (outcome.reason, outcome.retryable, outcome.category) == (ExitReason.ARTIFACT_NOT_STORED, True, "Artifacts")
    assert "the bucket does not exist" in outcome.message
    assert (outcome.artifacts, staged) == ((), [])


def test_an_end_that_cannot_be_reported_now_is_reported_by_the_next_operator(
    swift: Swift, where: S3Location, tmp_path: Path
) -> None:
    store = once(where, tmp_path / "store")
    with store.collecting() as collecting:
        file = collecting.put("a", io.BytesIO(b"a"), executable=False, most=10)
        collecting.sync()
        store.stage("data", "build", "uid-1", [left := StoredArtifact("files", (file,))])
    listing = Bucket(where, tries=2).list("blobs")
    swift.server.stop()
    # The message must not say that the object does not exist.
    with pytest.raises(StoreUnavailable, match="nothing answers"):
        list(listing)
    store.commit("uid", "uid-1")
    with pytest.raises(StoreUnavailable, match="nothing answers"):
        store.artifacts("data", "build")
    with pytest.raises(StoreUnavailable), store.collecting() as collecting:
        collecting.put("b", io.BytesIO(b"b"), executable=False, most=10)
        collecting.sync()
    swift.server.start()
    following = once(where, tmp_path / "store")
    assert following.artifacts("data", "build") == [left]
    swift.server.stop()
    following.release("data", "uid")
    swift.server.start()
    following.prune(1 << 30)
    assert keys(swift, where) == set()
    assert list((tmp_path / "store" / "later").iterdir()) == []


@pytest.mark.parametrize(
    ("url", "endpoint", "field"),
    [
        ("http://bucket", "", "--artifact-store"),
        ("s3://", "", "--artifact-store"),
        ("s3://user:password@bucket/x", "", "--artifact-store"),
        ("s3://bucket/../other", "", "--artifact-store"),
        ("s3://bucket/a b", "", "--artifact-store"),
        ("s3://bucket", "ftp://host", "--s3-endpoint"),
        ("s3://bucket", "https://user:password@host", "--s3-endpoint"),
    ],
)
def test_what_is_no_place_is_refused_without_its_password(url: str, endpoint: str, field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        location(url, endpoint, "", None, None)
    assert raised.value.field == field
    assert "password@" not in str(raised.value)
