"""Options of a Job's pod, named as in Kubernetes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from remit.api.base import Name, Rule, SpecModel

_LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
LabelKey = Annotated[str, Field(pattern=_LABEL_KEY, max_length=317)]
LabelValue = Annotated[str, Field(pattern=_LABEL_VALUE, max_length=63)]


class Toleration(SpecModel):
    """A node taint that the pod tolerates."""

    rules = (
        Rule("has(self.key) || self.operator == 'Exists'", "without a key the operator is Exists"),
        Rule("self.operator == 'Equal' || !has(self.value)", "with operator Exists there is no value; leave it out"),
    )

    key: LabelKey | None = None
    """The taint's key. Not set, with operator Exists: every taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the taint's value must equal `value` (`Equal`) or may be any value (`Exists`)."""
    value: LabelValue | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect. Not set: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long the pod stays on a node that gets such a taint with the effect NoExecute, in seconds. Not set: without a
    limit."""

    @property
    def words(self) -> str:
        """The toleration in kubectl's notation for taints, `key=value:effect`, with `*` for every key."""
        value = f"={self.value or ''}" if self.operator == "Equal" else ""
        return f"{self.key or '*'}{value}{f':{self.effect}' if self.effect else ''}"


class PodOptions(SpecModel):
    """Options of the pod of an attempt: its node, its ServiceAccount and its classes. A policy's `pods` must allow each
    value."""

    rules = (
        Rule(
            f"!has(self.nodeSelector) || self.nodeSelector.all(key, size(key) <= 317 && key.matches('{_LABEL_KEY}'))",
            "nodeSelector: a key is not one that a label may have",
            ".nodeSelector",
        ),
    )

    node_selector: Annotated[dict[str, LabelValue], Field(max_length=16)] = {}
    """Labels that the node must have, in addition to those for the operator's own architecture."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    """Node taints that the pod tolerates."""
    runtime_class_name: Name | None = None
    """The pod's RuntimeClass, such as one of gVisor or Kata Containers."""
    priority_class_name: Name | None = None
    """The pod's PriorityClass."""
    service_account_name: Name | None = None
    """The ServiceAccount that the pod runs as. Its token is mounted for the program. Not set: the pod has no token."""
    image_pull_secrets: Annotated[list[Name], Field(max_length=8)] = []
    """Names of Secrets that are used to pull the image."""

    @property
    def wishes(self) -> dict[str, list[str]]:
        """The values that a policy must allow, by the name of the list in its `pods`."""
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
