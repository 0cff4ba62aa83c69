"""The part of a CommandPolicy that lists where tasks with `network: restricted` may connect to."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from remit.api.base import SpecModel

HostName = Annotated[str, Field(min_length=1, max_length=253)]
Port = Annotated[int, Field(ge=1, le=65535)]
Cidr = Annotated[str, Field(max_length=49, json_schema_extra={"format": "cidr"})]


class EgressRule(SpecModel):
    """Allows connections to some hosts. The host name must match and the port must be listed; then the address that the
    name resolves to must be public or be in one of `addresses`."""

    hosts: Annotated[list[HostName], Field(min_length=1, max_length=64)]
    """Host names or addresses. A leading `*.` stands for one or more labels, so `*.example.com` does not match
    `example.com`; `*` alone stands for any host."""
    ports: Annotated[list[Port], Field(min_length=1, max_length=64)] = [443]
    """TCP ports that may be connected to."""
    addresses: Annotated[list[Cidr], Field(max_length=64)] = []
    """Networks, such as `10.1.0.0/16`, that these hosts may resolve to although the addresses are loopback, private,
    link-local or otherwise not public. A cloud's metadata address needs an entry of its own: `169.254.169.254/32`."""


class Egress(SpecModel):
    """Rules for connections of tasks with `network: restricted`. Connections that no rule allows are refused."""

    allow: Annotated[list[EgressRule], Field(max_length=64)] = []
    """Connections that are allowed."""
