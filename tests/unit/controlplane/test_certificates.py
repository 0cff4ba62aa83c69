"""Tests TLS material: private, valid for the served addresses, and renewed before its end."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from remit.controlplane.certificates import CA_LIFE, SERVER_LIFE, ensure_tls
from remit.controlplane.kubeconfig import ensure_token

HOSTS = ["127.0.0.1", "::1", "localhost"]


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_files_are_private_and_reused(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    made = ensure_tls(folder, HOSTS)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(files) == {"ca.crt", "ca.key", "server.crt", "server.key"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    ensure_tls(folder, HOSTS)
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}
    made.server_context()


def test_the_server_is_named_by_addresses_and_signed_by_the_authority(tmp_path: Path) -> None:
    made = ensure_tls(tmp_path, HOSTS)
    server = load(made.certificate)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(a) for a in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    server.verify_directly_issued_by(load(made.authority))
    key = server.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def test_a_certificate_near_its_end_is_renewed_under_the_same_authority(tmp_path: Path) -> None:
    made = ensure_tls(tmp_path, HOSTS)
    authority, old = made.authority.read_bytes(), load(made.certificate)
    soon = datetime.now(UTC) + SERVER_LIFE - timedelta(days=10)
    ensure_tls(tmp_path, HOSTS, soon)
    assert made.authority.read_bytes() == authority
    assert load(made.certificate).not_valid_after_utc > old.not_valid_after_utc


def test_another_address_or_authority_means_another_certificate(tmp_path: Path) -> None:
    made = ensure_tls(tmp_path, HOSTS)
    first = load(made.certificate).serial_number
    ensure_tls(tmp_path, [*HOSTS, "192.0.2.1"])
    second = load(made.certificate).serial_number
    assert second != first
    ensure_tls(tmp_path, HOSTS, datetime.now(UTC) + CA_LIFE)
    load(made.certificate).verify_directly_issued_by(load(made.authority))
    assert load(made.certificate).serial_number != second


def test_damaged_files_are_made_again(tmp_path: Path) -> None:
    made = ensure_tls(tmp_path, HOSTS)
    made.key.write_text("nonsense")
    (tmp_path / "ca.key").unlink()
    ensure_tls(tmp_path, HOSTS).server_context()


def test_the_token_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = ensure_token(path)
    assert len(token) >= 40 and ensure_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
