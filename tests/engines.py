"""Connections to the machine's Docker engine as to a remote one, through a Unix socket, TLS or SSH, that tests can
interrupt."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import shutil
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_ENGINE = "/var/run/docker.sock"


class Relay:
    """Forwards connections to the engine while it is open. `shut` also ends existing connections."""

    def __init__(self, slow: bytes = b"") -> None:
        """The response to a request that contains `slow` is sent byte by byte after its first piece."""
        self._slow = slow
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open_unix(self, path: Path) -> str:
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path)
        return f"unix://{path}"

    async def open_tls(self, context: ssl.SSLContext) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        return f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def shut(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in (going := list(self._tasks)):
                task.cancel()
            await asyncio.gather(*going, return_exceptions=True)
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(asyncio.CancelledError, OSError):
            beyond = await asyncio.open_unix_connection(_ENGINE)
            slow = asyncio.Event()
            await asyncio.gather(self._ask(reader, beyond[1], slow), _carry(beyond[0], writer, slow))
        writer.close()
        self._tasks.discard(task)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slow: asyncio.Event) -> None:
        try:
            while piece := await reader.read(1 << 16):
                if self._slow and self._slow in piece:
                    slow.set()
                writer.write(piece)
                await writer.drain()
        finally:
            writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slow: asyncio.Event) -> None:
    try:
        while piece := await reader.read(1 if slow.is_set() else 1 << 16):
            writer.write(piece)
            await writer.drain()
            if slow.is_set():
                await asyncio.sleep(0.05)
    finally:
        writer.close()


class Authority:
    """A certificate authority whose certificates are valid for both ends of a connection on this host."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self._certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_signing(), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def secret(self, name: str = "client", address: str = "127.0.0.1") -> Mapping[str, bytes]:
        """Returns the data of a Secret with `ca.crt`, `tls.crt` and `tls.key`."""
        key = ec.generate_private_key(ec.SECP256R1())
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(here, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        return {
            "ca.crt": self._certificate.public_bytes(pem),
            "tls.crt": certificate.public_bytes(pem),
            "tls.key": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain),
        }

    def context(self, folder: Path) -> ssl.SSLContext:
        """Returns the TLS context of an engine that requires client certificates."""
        folder.mkdir()
        for name, content in self.secret("engine").items():
            (folder / name).write_bytes(content)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        return context

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key.public_key())
        return builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)


def _signing() -> x509.KeyUsage:
    unwanted = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    rest = dict.fromkeys((*unwanted, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(**rest, key_cert_sign=True, crl_sign=True)


@asynccontextmanager
async def ssh_host(folder: Path, programs: Path) -> AsyncIterator[str]:
    """Starts an SSH server on which `docker` can be run, and yields its address.

    `programs` then contains an `ssh` that reads its configuration, keys and known hosts from `folder` instead of the
    home directory.
    """
    folder.mkdir()
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    user_key.write_private_key(str(folder / "id"))
    (folder / "id").chmod(0o600)
    (folder / "authorized").write_bytes(user_key.export_public_key())

    async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
        assert process.command == "docker system dial-stdio"
        child = await asyncio.create_subprocess_exec(
            *(str(shutil.which("docker")), "system", "dial-stdio"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        await process.redirect(stdin=child.stdin, stdout=child.stdout)
        try:
            await child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        process.exit(0)

    server = await asyncssh.listen(
        *("127.0.0.1", 0),
        server_host_keys=[host_key],
        authorized_client_keys=str(folder / "authorized"),
        process_factory=run,
        encoding=None,
    )
    port = server.get_port()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key.export_public_key().decode()}")
    (folder / "config").write_text(
        f"Host *\n  IdentityFile {folder}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
    )
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
    (programs / "ssh").chmod(0o755)
    try:
        yield f"ssh://deploy@127.0.0.1:{port}"
    finally:
        server.close()
        await server.wait_closed()
