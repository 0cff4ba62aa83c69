"""Where tasks with `network: restricted` may connect to: a part of a CommandPolicy."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from remit.api.base import SpecModel

HostName = Annotated[str, Field(min_length=1, max_length=253)]
Port = Annotated[int, Field(ge=1, le=65535)]
Cidr = Annotated[str, Field(max_length=49, json_schema_extra={"format": "cidr"})]


class EgressRule(SpecModel):
    """Allows connections to some hosts. The name must match and the port be listed, and then the address that the name
    leads to must be a public one, or in one of `addresses`."""

    hosts: Annotated[list[HostName], Field(min_length=1, max_length=64)]
    """Host names or addresses. A leading `*.` stands for one label or more, so `*.example.com` is not `example.com`;
    `*` alone stands for any host."""
    ports: Annotated[list[Port], Field(min_length=1, max_length=64)] = [443]
    """TCP ports."""
    addresses: Annotated[list[Cidr], Field(max_length=64)] = []
    """Networks, such as `10.1.0.0/16`, that these hosts may lead to though they are loopback, private, link-local or
    otherwise not public. A cloud's metadata address must be listed by itself, as `169.254.169.254/32`."""


class Egress(SpecModel):
    """Rules for connections of tasks with `network: restricted`. What no rule allows cannot be reached."""

    allow: Annotated[list[EgressRule], Field(max_length=64)] = []
    """What may be connected to."""
