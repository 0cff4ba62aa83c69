"""Pods: where a Job's pod goes, as whom, and with what, in Kubernetes' own words."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from remit.api.base import Name, Rule, SpecModel

_LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
LabelKey = Annotated[str, Field(pattern=_LABEL_KEY, max_length=317)]
LabelValue = Annotated[str, Field(pattern=_LABEL_VALUE, max_length=63)]


class Toleration(SpecModel):
    """A taint of nodes that the pod tolerates."""

    rules = (
        Rule("has(self.key) || self.operator == 'Exists'", "without a key the operator is Exists"),
        Rule("self.operator == 'Equal' || !has(self.value)", "with operator Exists there is no value; leave it out"),
    )

    key: LabelKey | None = None
    """The taint's key. Not set, with operator Exists: every taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the taint's value must be `value`, or may be any."""
    value: LabelValue | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect. Not set: every one."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long the pod stays on a node that gets such a taint with the effect NoExecute. Not set: for ever."""

    @property
    def words(self) -> str:
        """As kubectl writes taints, `key=value:effect`, with `*` for every key."""
        value = f"={self.value or ''}" if self.operator == "Equal" else ""
        return f"{self.key or '*'}{value}{f':{self.effect}' if self.effect else ''}"


class PodOptions(SpecModel):
    """Where the pod of an attempt goes, as whom it runs, and with what. A policy's `pods` must allow each."""

    rules = (
        Rule(
            f"!has(self.nodeSelector) || self.nodeSelector.all(key, size(key) <= 317 && key.matches('{_LABEL_KEY}'))",
            "nodeSelector: a key is not one that a label may have",
            ".nodeSelector",
        ),
    )

    node_selector: Annotated[dict[str, LabelValue], Field(max_length=16)] = {}
    """Labels that the node must have, besides those of the operator's own architecture."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Taints of nodes that it tolerates."""
    runtime_class_name: Name | None = None
    """The RuntimeClass, such as one of gVisor or Kata Containers."""
    priority_class_name: Name | None = None
    """The PriorityClass."""
    service_account_name: Name | None = None
    """The ServiceAccount that it runs as, whose token is mounted for the program. Not set: it has no token."""
    image_pull_secrets: Annotated[list[Name], Field(max_length=8)] = []
    """Names of Secrets with which the image is pulled."""

    @property
    def wishes(self) -> dict[str, list[str]]:
        """What each list of a policy's `pods` must allow, by its name there."""
        single = {
            "runtimeClasses": self.runtime_class_name,
            "priorityClasses": self.priority_class_name,
            "serviceAccounts": self.service_account_name,
        }
        return {
            "nodeSelectors": [f"{key}={value}" for key, value in sorted(self.node_selector.items())],
            "tolerations": [toleration.words for toleration in self.tolerations],
            "pullSecrets": list(self.image_pull_secrets),
            **{name: [wish] if wish else [] for name, wish in single.items()},
        }
