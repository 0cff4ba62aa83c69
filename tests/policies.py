"""Makes compiled policies and requests for tests, in the words of the YAML."""

from remit.api import CommandPolicy
from remit.policy import Command, CompiledPolicy, Limits, Request, compile_policy


def policy(name: str = "p", namespace: str = "data", **spec: object) -> CompiledPolicy:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
    return compile_policy(CommandPolicy.parse({"metadata": metadata, "spec": spec}))


def allowing(*patterns: str, name: str = "p", namespace: str = "data", **spec: object) -> CompiledPolicy:
    commands = {"allow": [{"pattern": pattern} for pattern in patterns]}
    return policy(name, namespace, commands=commands, **spec)


def request(*argv: str, resolved: str | None = "", real: str | None = None, **fields: object) -> Request:
    if resolved == "":
        resolved = argv[0] if "/" in argv[0] else f"/usr/bin/{argv[0]}"
    return Request(**{"namespace": "data", "command": Command(argv, resolved, real), "limits": Limits(), **fields})
