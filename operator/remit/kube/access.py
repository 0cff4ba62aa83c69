"""How to reach an API server, and as whom.

That comes from a kubeconfig with a static login, or else from the official client's loader: kubeconfigs with all other
ways of logging in, or a pod's service account.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import yaml

from remit import safeyaml
from remit.errors import RemitError
from remit.kube.staticlogin import static_login
from remit.userpaths import NO_HOME, default_state_dir, home


def fallback_kubeconfig() -> Path | None:
    """The one that `remit up` wrote, when the user has no other."""
    usual = home() / ".kube" / "config"
    if os.environ.get("KUBECONFIG") or "KUBERNETES_SERVICE_HOST" in os.environ or usual.exists():
        return None
    own = default_state_dir() / "kubeconfig"
    with contextlib.suppress(OSError):
        if own.is_file():
            return own
    return None


def pod_namespace() -> str:
    """The namespace of the pod that this process runs in."""
    return Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an API server, and as whom."""

    server: str
    ca_file: str | None = None
    ca_data: str | None = field(default=None, repr=False)
    """The same as text, in PEM."""
    token: str | None = field(default=None, repr=False)
    cert_file: str | None = None
    key_file: str | None = None
    login_data: str | None = field(default=None, repr=False)
    """A certificate to log in with and its private key as text, in PEM."""
    verify: bool = True
    namespace: str = "default"
    configuration: Any = field(default=None, repr=False)
    """The official client's configuration, whose hook renews tokens that expire."""
    impersonation: tuple[tuple[str, str], ...] = ()
    """Headers that ask to be treated as somebody else, as the kubeconfig says."""

    @classmethod
    async def load(cls, kubeconfig: Path | None = None, context: str | None = None) -> Self:
        """Read the access from `kubeconfig`, or else KUBECONFIG or ~/.kube/config, or else the pod's service account.

        Raises `RemitError` that says which file was looked into, and what it lacks.
        """
        in_pod = kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ
        files = [] if in_pod else _kubeconfigs(kubeconfig)
        if len(files) == 1 and (login := static_login(files[0], context)):
            return cls(**login)
        if home() == NO_HOME:  # the client library determines the home directory when it is imported
            os.environ["HOME"] = str(NO_HOME)
        # Imported here, because the import takes longer than most commands run, and few of them need it.
        from kubernetes.aio import client, config

        configuration = client.Configuration()
        impersonation: tuple[tuple[str, str], ...] = ()
        try:
            if in_pod:
                config.load_incluster_config(client_configuration=configuration)
                namespace = pod_namespace()
            else:
                _check(files)
                # Passed explicitly, because the library reads the environment only when it is imported.
                file = os.pathsep.join(map(str, files))
                contexts, active = config.list_kube_config_contexts(file)
                chosen = next((item for item in contexts if item["name"] == context), None) if context else active
                if chosen is None:
                    names = ", ".join(str(item["name"]) for item in contexts)
                    raise RemitError(f"{file} has no context {context!r}; it has {names}")
                await config.load_kube_config(file, context, client_configuration=configuration)
                namespace = chosen["context"].get("namespace", "default")
                impersonation = impersonation_of(files, chosen["context"].get("user"))
        except config.ConfigException as error:
            raise RemitError(
                f"no API server to talk to: {error}. Start one with 'remit up', or name a kubeconfig with --kubeconfig"
            ) from None
        except (
            yaml.YAMLError,
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
        ):  # the library validates little
            raise RemitError(
                f"{kubeconfig or os.environ.get('KUBECONFIG', '~/.kube/config')} is not a kubeconfig; "
                "mend it, or name another one with --kubeconfig"
            ) from None
        return cls(
            server=configuration.host,
            ca_file=configuration.ssl_ca_cert,
            token=configuration.api_key.get("authorization") or configuration.api_key.get("BearerToken"),
            cert_file=configuration.cert_file,
            key_file=configuration.key_file,
            verify=bool(configuration.verify_ssl),
            namespace=namespace,
            configuration=configuration,
            impersonation=impersonation,
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """Trust what kubectl trusts. None for a server without TLS.

        Raises `RemitError` for certificates that cannot be read.
        """
        if not self.server.startswith("https:"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file, cadata=self.ca_data)
            if self.ca_file or self.ca_data:
                # Python 3.13 is strict by default: it rejects an authority without keyUsage and a certificate without
                # key identifiers, which some clusters have. Go accepts both. Go also accepts any certificate in the
                # file as a trust anchor, self-signed or not; Python before 3.13 did not.
                context.verify_flags &= ~ssl.VERIFY_X509_STRICT
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
            elif self.login_data:
                _load_login(context, self.login_data)
        except OSError as error:  # includes ssl.SSLError
            why = getattr(error, "reason", None) or error.strerror or error
            raise RemitError(
                f"the certificates for {self.server} in the kubeconfig cannot be used: {why}; take a new kubeconfig"
            ) from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    async def login(self) -> list[tuple[str, str]]:
        """The headers that say who asks."""
        authorization = await self.authorization()
        return [*([("Authorization", authorization)] if authorization else []), *self.impersonation]

    async def authorization(self) -> str | None:
        """The value of the Authorization header; renewed where the login says how."""
        hook = getattr(self.configuration, "refresh_api_key_hook", None)
        if hook is None:
            return self.token
        renewed = hook(self.configuration)
        if renewed is not None:
            await renewed
        api_key = self.configuration.api_key
        value: str | None = api_key.get("authorization") or api_key.get("BearerToken")
        return value


def impersonation_of(files: Sequence[Path], user: object) -> tuple[tuple[str, str], ...]:
    """Headers for what the entry of `user` says of whom to act as, which the library passes over: with the login's own
    rights a command would do, and show, more than kubectl. Raises TypeError for what is no such entry."""
    for path in files:
        for document in safeyaml.load_all(path.read_bytes()):
            for entry in document.get("users") or []:
                if entry["name"] == user:  # the first file that has the user is used, as in kubectl
                    return tuple(_impersonation(entry.get("user") or {}))
    return ()


def _impersonation(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    groups, extra = entry.get("as-groups") or [], entry.get("as-user-extra") or {}
    if not isinstance(groups, list) or not isinstance(extra, dict):
        raise TypeError("as-groups is a list, and as-user-extra a mapping")
    for name, header in (("as", "Impersonate-User"), ("as-uid", "Impersonate-Uid")):
        if entry.get(name):
            yield header, str(entry[name])
    for group in groups:
        yield "Impersonate-Group", str(group)
    for key, values in extra.items():
        for value in values:
            yield f"Impersonate-Extra-{quote(str(key), safe='')}", str(value)


def _kubeconfigs(named: Path | None) -> list[Path]:
    """The kubeconfigs in use that exist: about the others the official client would write on the user's terminal.
    Raises `RemitError` where there is none."""
    names = str(named or os.environ.get("KUBECONFIG") or "~/.kube/config")
    paths = [Path(os.path.expanduser(name)) for name in names.split(os.pathsep) if name]  # noqa: PTH111  # never raises
    if not (existing := [path for path in paths if path.is_file()]):
        raise RemitError(
            f"no API server to talk to: there is no kubeconfig {names}. Start one with 'remit up', or name a "
            "kubeconfig with --kubeconfig"
        )
    return existing


def _check(paths: list[Path]) -> None:
    """Raises `yaml.YAMLError` for what the official client's loader should not be given: it sets itself no bounds."""
    for path in paths:
        safeyaml.load_all(path.read_bytes())


def _load_login(context: ssl.SSLContext, pem: str) -> None:
    """Log in with a certificate and its key. OpenSSL reads them from a file, and this one is on no disk."""
    with os.fdopen(os.memfd_create("login"), "wb", buffering=0) as file:  # closed on exec
        file.write(pem.encode("ascii"))
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
