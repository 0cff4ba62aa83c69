"""`remit crds`: the CustomResourceDefinitions."""

from __future__ import annotations

import typer


def crds() -> None:
    """Print Remit's CustomResourceDefinitions as YAML, for kubectl apply --server-side -f -."""
    from remit.api import crd

    typer.echo(crd.render(), nl=False)
