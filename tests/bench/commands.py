"""Measures commands of `remit` as processes, beside Python and kubectl doing nothing."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.figures import Figures, milliseconds, percentile, ratio
from bench.processes import environment
from bench.system import remit_up

RUNS = 15
POLICY = """
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: bench, namespace: default}
spec:
  commands:
    allow: [{executable: "true", reason: a program that does nothing}]
"""
BARE = "python -c pass"
COLUMNS = ("", "p50 ms", "p95 ms", f"p50 to {BARE}", "CPU ms")


async def measure() -> Figures:
    remit = [sys.executable, "-m", "remit.cli"]
    commands = {
        BARE: [sys.executable, "-c", "pass"],
        "remit --version": [*remit, "--version"],
        "remit get": [*remit, "get"],
        "remit logs": [*remit, "logs", "bench"],
        "remit run -- true": [*remit, "run", "--quiet", "--", "true"],
    }
    beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    if (kubectl := shutil.which("kubectl", path=beside)) is None:
        raise RuntimeError("there is no kubectl to compare with; it comes with the packages of `make test`")
    commands |= {"kubectl version --client": [kubectl, "version", "--client"], "kubectl get": [kubectl, "get", "et"]}
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        async with remit_up(Path(folder)) as server:
            policy = Path(folder, "policy.yaml")
            policy.write_text(POLICY)
            env = environment() | {"KUBECONFIG": str(server.kubeconfig), "KUBECACHEDIR": folder}
            _run([kubectl, "apply", "--filename", str(policy)], env)
            _run([*remit, "run", "--quiet", "--name", "bench", "--", "true"], env)
            samples = _in_turns(commands, env)
    base = percentile([seconds for seconds, _ in samples[BARE]], 50)
    rows = []
    for name, taken in samples.items():
        seconds, cpu = [each for each, _ in taken], [each for _, each in taken]
        middle = percentile(seconds, 50)
        row = (name, milliseconds(middle), milliseconds(percentile(seconds, 95)), ratio(middle, base))
        rows.append((*row, milliseconds(percentile(cpu, 50))))
    return Figures("Commands: from start to end", COLUMNS, rows, "In turns. CPU is of the command alone, p50.")


def _in_turns(commands: Mapping[str, Sequence[str]], env: Mapping[str, str]) -> dict[str, list[tuple[float, float]]]:
    """Returns wall-clock and CPU time of each run in seconds, except for the first run of each command, which compiles
    and caches."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(RUNS + 1):
        for name, command in commands.items():
            cpu, start = _cpu(), time.perf_counter()
            _run(command, env)
            if turn:
                samples[name].append((time.perf_counter() - start, _cpu() - cpu))
    return samples


def _run(command: Sequence[str], env: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with exit code {done.returncode}: {done.stderr}")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
