"""The labels that tell Remit's own objects from others of a namespace."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OURS: Final[Mapping[str, str]] = MappingProxyType({"app.kubernetes.io/managed-by": "remit"})
LAUNCHER: Final[Mapping[str, str]] = MappingProxyType({**OURS, "app.kubernetes.io/component": "launcher"})
WORKSPACE: Final[Mapping[str, str]] = MappingProxyType({**OURS, "app.kubernetes.io/component": "workspace"})
ATTEMPT: Final = "remit.dev/attempt"
"""The label with an attempt's id."""
GATEWAY: Final[Mapping[str, str]] = MappingProxyType({**OURS, "app.kubernetes.io/component": "egress-gateway"})
NETWORK: Final = "remit.dev/network"
"""The label with what an attempt sees of the network."""
GATEWAY_UID: Final = "remit.dev/egress-gateway"
"""The annotation of an attempt's Job with the uid of its gateway's."""
MADE_BY: Final = "remit.dev/made-by"
"""The annotation of an attempt's Job with a word that only who creates it knows before it is there."""
NETWORK_BY: Final = "remit.dev/network-by"
"""The annotation of an attempt's Job with what holds its network."""
ATTEMPTS: Final = f"{','.join(f'{name}={value}' for name, value in OURS.items())},{ATTEMPT}"
"""Selects the pods of attempts."""
