"""Builds compiled policies and requests for tests, from fields named as in YAML."""

from remit.api.commandpolicy import CommandPolicy
from remit.policy.compile import CompiledPolicy, compile_policy
from remit.policy.grant import Grant
from remit.policy.limits import Limits
from remit.policy.match import Command
from remit.policy.request import PolicyRequest
from remit.release.targets.reading import Reading


def policy(name: str = "p", namespace: str = "data", **spec: object) -> CompiledPolicy:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
    return compile_policy(CommandPolicy.parse({"metadata": metadata, "spec": spec}))


def allowing(*patterns: str, name: str = "p", namespace: str = "data", **spec: object) -> CompiledPolicy:
    commands = {"allow": [{"pattern": pattern} for pattern in patterns]}
    return policy(name, namespace, commands=commands, **spec)


def request(*argv: str, resolved: str | None = "", real: str | None = None, **fields: object) -> PolicyRequest:
    if resolved == "":
        resolved = argv[0] if "/" in argv[0] else f"/usr/bin/{argv[0]}"
    return PolicyRequest(
        **{"namespace": "data", "command": Command(argv, resolved, real), "limits": Limits(), **fields}
    )


def reading(*paths: str, deny: str = "", protected: str = "") -> Reading:
    """Returns rules that allow reading artifacts at these paths."""
    denied = {"deny": [{"paths": [deny], "operations": ["read"]}]} if deny else {}
    given = policy(files={"allow": [{"paths": list(paths), "operations": ["read"]}], **denied})
    return Reading(
        Grant(PolicyRequest(namespace="data", operation="file"), [given], []), [protected] if protected else []
    )
