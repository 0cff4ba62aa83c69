"""Generates docs/metrics.md from the metrics that the operator and the control plane declare (`make docs`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from remit.controlplane.http.metrics import RequestMetrics
from remit.telemetry.metrics import Metrics

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"

_HEAD = """\
# Metrics

<!-- Written by `make docs` from what is declared; do not edit. -->

At `/metrics`, in Prometheus' text format or OpenMetrics. Seconds, bytes, and `_total` for what only rises.
[Seeing what happens](observability.md#metrics) tells where they are served, who may read them and how they stay
bounded. The usual `process_*` metrics of each process are there too.
"""
_OPERATOR = """
## The operator

`backend` is where it ran, and `operator` for what Remit performs itself; `kind` a kind of object, and in `workqueue_*`
`name` its [controller](architecture.md#controllers).
"""
_CONTROL_PLANE = """
## The control plane of `remit up`

At `/metrics` of its own address, with its own token, as kube-apiserver has it: `kubectl get --raw /metrics`. Names and
labels are those of kube-apiserver. `resource` is one that is served, and empty for every other path.
"""


@dataclass(frozen=True)
class Family:
    """A metric as it is named on a page or in a query: a counter with its `_total`."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names that a query may use."""
        if self.type == "histogram":
            return tuple(self.name + suffix for suffix in ("_bucket", "_count", "_sum"))
        return (self.name,)


def declared(registry: CollectorRegistry) -> Iterator[Family]:
    """Yields Remit's own metrics in the order in which they are declared."""
    for collector in registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            (family,) = collector.describe()
            name = family.name + "_total" * (family.type == "counter")
            yield Family(name, family.type, tuple(collector._labelnames), family.documentation)


def operator() -> list[Family]:
    return [*declared(Metrics().registry)]


def control_plane() -> list[Family]:
    return [*declared(RequestMetrics().registry)]


def render() -> str:
    return _HEAD + _OPERATOR + _table(operator()) + _CONTROL_PLANE + _table(control_plane())


def _table(families: list[Family]) -> str:
    rows = [
        f"| `{each.name}` | {each.type} | {', '.join(f'`{label}`' for label in each.labels)} | {_cell(each.help)} |\n"
        for each in families
    ]
    return "\n| metric | type | labels | |\n| --- | --- | --- | --- |\n" + "".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", r"\<")


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit("usage: python tests/metricspage.py")
    PAGE.write_text(render())
