"""Measures how long a policy decision takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from bench.figures import Figures, percentile
from remit.api.commandpolicy import CommandPolicy
from remit.policy.compile import CompiledPolicy, compile_policy
from remit.policy.deciding import decide
from remit.policy.limits import Limits
from remit.policy.match import Command
from remit.policy.request import PolicyRequest

STARTER = Path(__file__).parents[2] / "manifests/examples/00-starter-policy.yaml"
RUNS = 2000


async def measure() -> Figures:
    starter = yaml.safe_load(STARTER.read_text())
    rows = []
    for count in (1, 50):
        policies = [compiled(starter, f"starter-{number}") for number in range(count)]
        for what, argv in (("allowed", ("python3", "tools/report.py", "month=5")), ("denied", ("rm", "-rf", "/"))):
            times = [elapsed(argv, policies, what == "allowed") for _ in range(RUNS)]
            name = f"{what}, {count} {'policy' if count == 1 else 'policies'}"
            rows.append((name, f"{percentile(times, 50) * 1e6:,.0f}", f"{percentile(times, 95) * 1e6:,.0f}"))
    return Figures("Policy: one decision under the starter policy", ("", "p50 µs", "p95 µs"), rows)


def compiled(manifest: dict[str, object], name: str) -> CompiledPolicy:
    return compile_policy(
        CommandPolicy.parse({**manifest, "metadata": {"name": name, "namespace": "default", "uid": name}})
    )


def elapsed(argv: tuple[str, ...], policies: Sequence[CompiledPolicy], allowed: bool) -> float:
    request = PolicyRequest(namespace="default", command=Command(argv, f"/usr/bin/{argv[0]}"), limits=Limits())
    start = time.perf_counter()
    decision = decide(request, policies)
    seconds = time.perf_counter() - start
    if decision.allowed is not allowed:
        raise RuntimeError(f"{argv} came out otherwise than meant: {decision.message}")
    return seconds
