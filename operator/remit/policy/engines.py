"""Addresses of Docker engines, and the patterns by which policies name them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from remit.policy.argv import refused_character, takes_a_detour
from remit.policy.hostpatterns import HostPattern, RangePattern, host_or_range
from remit.policy.hosts import BadHost, Destination, Host, unambiguous_host
from remit.policy.patterns import BadPattern, Pattern, glob, path_glob

DEFAULT_PORTS: Final = {"ssh": 22, "tcp": 2376}

_ANY: Final = "*"
_UNIX: Final = "unix://"
_REMOTE: Final = re.compile(r"(ssh|tcp)://(?:([^@]*)@)?(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}|\*))?")
_USER: Final = re.compile(r"[a-z0-9_][-a-z0-9._]*", re.IGNORECASE)
"""Never an option of a program, nor words of a shell that a configuration of SSH begins."""


class BadEngine(ValueError):
    """It is not the address of an engine, or not a pattern of one; the message says why."""


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """The address of an engine: `path` with `unix`, `host` with `ssh` and `tcp`."""

    scheme: str
    path: str = ""
    user: str = ""
    host: Host = ""
    port: int | None = None
    """None: the scheme's own, or what the configuration of SSH says."""

    @classmethod
    def parse(cls, text: str) -> EngineAddress:
        """Raises `BadEngine`."""
        if text.startswith(_UNIX):
            return cls("unix", path=_path(text))
        scheme, user, host, port = _remote(text)
        if user and not _USER.fullmatch(user):
            raise _malformed(scheme)
        if port and not (port.isdecimal() and 0 < int(port) < 65536):
            raise BadEngine(f"{port} is not a port")
        try:
            return cls(scheme, user=user, host=unambiguous_host(host), port=int(port) if port else None)
        except BadHost as error:
            raise BadEngine(f"write {_form(scheme)}: {error}") from None

    @property
    def authority(self) -> str:
        """`HOST:PORT`, with the scheme's own port where the address has none."""
        return str(Destination(self.host, self.port or DEFAULT_PORTS[self.scheme]))


@dataclass(frozen=True, slots=True)
class EnginePattern:
    """Engines at addresses of one scheme. The host is a pattern of a host or a range, the user a glob."""

    scheme: str
    path: Pattern | None = None
    user: Pattern | None = None
    host: HostPattern | RangePattern | None = None
    port: int | None = None
    """None: any."""

    @classmethod
    def parse(cls, text: str) -> EnginePattern:
        """Parse `*` (any engine), `unix://` with a glob over paths, or an address with patterns in it: the host may be
        `*`, `*.` with a domain, or a range such as `10.0.0.0/24` or `10.0.0.*`, the user a glob, the port `*`.

        Raises `BadEngine`.
        """
        if text == _ANY:
            return cls(_ANY)
        try:
            if text.startswith(_UNIX):
                return cls("unix", path=path_glob(_path(text)))
            scheme, user, host, port = _remote(text)
            if user and not _USER.fullmatch(user.replace(_ANY, "x")):
                raise _malformed(scheme)
            number = None if port == _ANY else int(port or DEFAULT_PORTS[scheme])
            return cls(scheme, user=glob(user), host=host_or_range(host), port=number)
        except (BadHost, BadPattern) as error:
            raise BadEngine(str(error)) from None

    def matches(self, engine: EngineAddress) -> bool:
        if self.scheme == _ANY:
            return True
        if self.scheme != engine.scheme:
            return False
        if self.user is None or self.host is None:
            return self.path is not None and self.path.matches(engine.path)
        port = engine.port or DEFAULT_PORTS[engine.scheme]
        return self.user.matches(engine.user) and self.host.matches(engine.host) and self.port in {None, port}


def _path(text: str) -> str:
    _check_characters(text)
    path = text.removeprefix(_UNIX)
    if not path.startswith("/"):
        raise BadEngine("write unix:///PATH")
    if takes_a_detour(path):
        raise BadEngine("the path takes a detour; write it without '..', '.', '//' or a final '/'")
    return path


def _remote(text: str) -> tuple[str, str, str, str]:
    """Scheme, user, host and port, each but the first perhaps empty."""
    _check_characters(text)
    scheme = text.partition("://")[0]
    if scheme not in DEFAULT_PORTS:
        raise BadEngine("write unix:///PATH, ssh://[USER@]HOST[:PORT] or tcp://HOST[:PORT]")
    match = _REMOTE.fullmatch(text.removesuffix("/"))
    if match is None:
        raise _malformed(scheme)
    if scheme == "tcp" and match[2] is not None:
        user = match[2] if _USER.fullmatch(match[2]) else "USER"
        raise BadEngine(f"certificates say who asks; leave out {user}@")
    return scheme, match[2] or "", match[3], match[4] or ""


def _check_characters(text: str) -> None:
    if refused := refused_character(text):
        raise BadEngine(f"it has {refused[1]} in column {refused[0]}")


def _malformed(scheme: str) -> BadEngine:
    return BadEngine(f"write {_form(scheme)}, where the port is a number")


def _form(scheme: str) -> str:
    return f"{scheme}://{'[USER@]' if scheme == 'ssh' else ''}HOST[:PORT]"
