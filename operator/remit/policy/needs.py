"""Finds what a policy's spec lacks for a request: one function for each kind of rule. Pure.

Each gives a part of a CommandPolicy's spec in the words of its YAML, or None where no rule can say exactly that. A
denial carries it (`Denial.needs`); messages show it (`line`), and `suggestion` puts whole policies together from it. A
new kind of rule needs a function here, and its denial the result.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from remit.api.quantity import parse_quantity
from remit.policy.addresses import METADATA, special_kind
from remit.policy.argv import canonical
from remit.policy.hosts import Destination

Part = dict[str, Any]
"""A part of a policy's spec, such as `{"environment": {"allow": ["PGHOST"]}}`."""

MOST_ARGUMENTS: Final = 64
MOST_PATTERN: Final = 2048
"""Limit in characters. Both are limits of the API."""
_SPECIAL: Final = re.compile(r"([\\.+*?()|\[\]{}^$])")
_WITH_SUBCOMMAND: Final = frozenset(
    {
        *("ACL", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "FUNCTION", "LATENCY", "MEMORY", "MODULE", "OBJECT"),
        *("PUBSUB", "SCRIPT", "SLOWLOG", "XGROUP", "XINFO"),
    }
)
"""Commands of Redis."""
_AMOUNTS: Final = frozenset({"max", "maxBytes", "maxRetainSeconds", "maxSize"})
_WILDCARD: Final = re.compile(r"[*?]")
_MORE_IN_A_NAME: Final = frozenset("*.")


def exactly(text: str) -> str:
    """The RE2 pattern that matches `text` alone, with as few backslashes as that takes."""
    return "[…]" if text == "…" else _SPECIAL.sub(r"\\\1", text)  # a bare ellipsis would stand for any arguments


def command(argv: Sequence[str]) -> Part | None:
    """The rule for exactly this argument list. None where it is longer than rules may be."""
    program, *arguments = argv
    patterns = [exactly(argument) for argument in arguments]
    in_bounds = len(patterns) <= MOST_ARGUMENTS and all(len(pattern) <= MOST_PATTERN for pattern in patterns)
    if in_bounds and (program.startswith("/") or "/" not in program):
        return {"commands": {"allow": [{"executable": program, "args": patterns}]}}
    pattern = exactly(canonical(argv))  # also for a program whose path is relative to an image's working directory
    return {"commands": {"allow": [{"pattern": pattern}]}} if len(pattern) <= MOST_PATTERN else None


def script(interpreter: str, digest: str) -> Part:
    return {"scripts": {"interpreters": [interpreter], "sha256": [digest]}}


def files(operation: str, paths: Sequence[str], *, recursive: bool) -> Part | None:
    """None for a path with a wildcard in its name. What is below counts for a recursive operation."""
    if any(_WILDCARD.search(path) for path in paths):
        return None
    globs = [f"{path}/**" if recursive else path for path in paths]
    return {"files": {"allow": [{"paths": [each], "operations": [operation]} for each in dict.fromkeys(globs)]}}


def http(method: str, host: str, port: int, path: str) -> Part | None:
    """None for a path with a wildcard in it."""
    if _WILDCARD.search(path):
        return None
    return {"http": {"allow": [{"hosts": [host], "methods": [method], "ports": [port], "paths": [path]}]}}


def egress(destination: Destination) -> Part | None:
    """None for a cloud's metadata address, which hands out the machine's credentials: that is to be listed by hand."""
    host, port = destination.host, destination.port
    if not isinstance(host, str) and special_kind(host) == METADATA:
        return None
    return {"egress": {"allow": [{"hosts": [str(host)], "ports": [port]}]}}


def engine(address: str) -> Part | None:
    """The part of a policy that allows releases to an engine. None for an address with a wildcard."""
    return None if _WILDCARD.search(address) else {"releases": {"engines": [address]}}


def release_place(field: str, name: str) -> Part:
    """`field`: namespaces or serviceAccounts."""
    return {"releases": {field: [name]}}


def process(action: str) -> Part:
    return {"processes": {"operations": [action]}}


def connection(kind: str, secret: str) -> Part:
    """`kind`: postgres or redis."""
    return {"databases": {kind: {"secrets": [secret]}}}


def statements(kinds: Collection[str]) -> Part:
    """The part of a policy that allows kinds of PostgreSQL statements."""
    return {"databases": {"postgres": {"statements": sorted(kinds)}}}


def functions(names: Sequence[tuple[str, str]]) -> Part | None:
    """The part of a policy that allows these functions of PostgreSQL, each with its schema or "". None where a name, in
    quotes, has in it what means more in a rule."""
    if any(_MORE_IN_A_NAME & {*schema, *name} for schema, name in names):
        return None
    listed = [f"{schema}.{name}" if schema else name for schema, name in names]
    return {"databases": {"postgres": {"functions": listed}}}


def redis(words: Sequence[str]) -> Part:
    """The command, with its first argument where that says what it does."""
    name = words[0].upper()
    return {"databases": {"redis": {"commands": [" ".join(words[:2]).upper() if name in _WITH_SUBCOMMAND else name]}}}


def working_dirs(paths: Sequence[str]) -> Part:
    """The part of a policy that allows working directories of containers."""
    return {"containers": {"workingDirs": list(paths)}}


def working_dir(path: str) -> Part | None:
    """The part of a policy that allows one working directory of a container. None for a path with a wildcard."""
    return None if _WILDCARD.search(path) else working_dirs([path])


def container(action: str, options: Sequence[str], mounts: Sequence[str]) -> Part | None:
    """None for a mount with a wildcard in its path."""
    if any(_WILDCARD.search(path) for path in mounts):
        return None
    given = {"operations": [action], "options": list(options), "mounts": list(dict.fromkeys(mounts))}
    return {"containers": {name: listed for name, listed in given.items() if listed}}


def images(image: str) -> Part | None:
    """None for a name that would be a wildcard, which no image has."""
    return None if not image or _WILDCARD.search(image) else {"images": {"allow": [image]}}


def backends(backend: str) -> Part:
    return {"backends": [backend]}


def networks(network: str) -> Part:
    return {"networks": [network]}


def environment(names: Sequence[str]) -> Part:
    return {"environment": {"allow": list(names)}}


def private_files(paths: Sequence[str]) -> Part:
    """Globs, in which a special character stands in brackets for itself."""
    return {"privateFiles": {"allow": [re.sub(r"([*?[])", r"[\1]", path) for path in paths]}}


def host_paths(path: str, access: str) -> Part | None:
    """None for a path with a wildcard in its name."""
    if _WILDCARD.search(path):
        return None
    return {"volumes": {"hostPaths": [{"paths": [path], "access": [access]}]}}


def pods(field: str, wishes: Sequence[str]) -> Part | None:
    """`field`: one of the lists of `pods`. None for a wish with a wildcard, such as a toleration of every taint."""
    return None if any(_WILDCARD.search(wish) for wish in wishes) else {"pods": {field: list(wishes)}}


def workspaces(name: str, size: str | int | None) -> Part:
    """`size`: None where the task asks for none."""
    return {"volumes": {"workspaces": [{"names": [name], **({} if size is None else {"maxSize": size})}]}}


def artifacts(**most: str | int) -> Part:
    """`most`: `maxBytes` and `maxRetainSeconds`, as far as they are more than a policy says by default."""
    return {"volumes": {"artifacts": most}}


def releases(deployment: str) -> Part:
    return {"volumes": {"releases": [deployment]}}


def raw_output() -> Part:
    return {"output": {"allowRaw": True}}


def limit(name: str, most: str | int) -> Part:
    """`name` as written in a policy, such as `timeoutSeconds`."""
    return {"limits": {name: {"max": most}}}


def merged(spec: Mapping[str, Any], part: Mapping[str, Any]) -> Part:
    """`spec` and what `part` adds: lists have the entries of both, and of two amounts the larger one counts."""
    result = copy.deepcopy(dict(spec))
    for key, value in part.items():
        before = result.get(key)
        if isinstance(before, dict) and isinstance(value, Mapping):
            result[key] = merged(before, value)
        elif isinstance(before, list):
            result[key] = [*before, *(copy.deepcopy(each) for each in value if each not in before)]
        elif before is None or key not in _AMOUNTS:
            result[key] = copy.deepcopy(value)
        else:
            result[key] = max(before, value, key=parse_quantity)
    return result


def line(part: Mapping[str, Any]) -> str:
    """`part` on one line of YAML, with every text quoted: `environment: {allow: ["PGHOST"]}`."""
    return ", ".join(f"{key}: {flow(value)}" for key, value in part.items())


def flow(value: Any) -> str:
    """A value on one line of YAML."""
    return f"{{{line(value)}}}" if isinstance(value, Mapping) else json.dumps(value)
