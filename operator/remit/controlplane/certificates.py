"""TLS for loopback: an EC P-256 authority of our own, and a server certificate that names the addresses served."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from remit.privatefiles import private_directory, read_private, replace_private

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class TlsMaterial:
    """Paths of PEM files, all of mode 0600. `authority` is what clients must trust."""

    authority: Path
    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        return context


def ensure_tls(folder: Path, hosts: Sequence[str], now: datetime | None = None) -> TlsMaterial:
    """Make what is missing, and renew what is near its end or does not name the hosts.

    Raises `InvalidInput` where somebody else owns the folder or a file in it.
    """
    now = now or datetime.now(UTC)
    private_directory(folder)
    material = TlsMaterial(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    ca_key_path = folder / "ca.key"
    ca, ca_key = _load(material.authority, ca_key_path)
    if ca is None or ca_key is None or ca.not_valid_after_utc - RENEW_BEFORE < now:
        ca, ca_key = _make_authority(now)
        _write_pair(material.authority, ca, ca_key_path, ca_key)
    server, server_key = _load(material.certificate, material.key)
    usable = (
        server is not None
        and server_key is not None
        and server.not_valid_after_utc - RENEW_BEFORE > now
        and server.issuer == ca.subject
        and set(hosts) <= _hosts_of(server)
        and _signed_by(server, ca)
    )
    if not usable:
        server, server_key = _make_server(ca, ca_key, hosts, now)
        _write_pair(material.certificate, server, material.key, server_key)
    return material


def _load(certificate: Path, key: Path) -> tuple[x509.Certificate | None, ec.EllipticCurvePrivateKey | None]:
    try:
        loaded = serialization.load_pem_private_key(read_private(key), None)
        if isinstance(loaded, ec.EllipticCurvePrivateKey):
            return x509.load_pem_x509_certificate(read_private(certificate)), loaded
    except (OSError, ValueError):
        pass
    return None, None


def _signed_by(server: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        server.verify_directly_issued_by(ca)
    except Exception:  # the library raises one of several exceptions for a wrong key
        return False
    return True


def _hosts_of(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return {*names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses)}


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(common_name: str, now: datetime, life: timedelta) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _make_authority(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder("remit-control-plane-ca", now, CA_LIFE)
    certificate = (
        builder.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "remit-control-plane-ca")]))
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _make_server(
    ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder("remit-control-plane", now, SERVER_LIFE)
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate, key


def _write_pair(
    certificate_path: Path, certificate: x509.Certificate, key_path: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    replace_private(key_path, private)
    replace_private(certificate_path, certificate.public_bytes(pem))
