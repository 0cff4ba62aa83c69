"""`remit page`: a link that logs in to the live page."""

from __future__ import annotations

import time

import typer

from remit.cli import options


def page(state_dir: options.StateDir = None) -> None:
    """Print a link to the page of [bold]remit up[/] that logs in, once and within 15 minutes.

    Whoever has the link may do there what the kubeconfig of [bold]remit up[/] lets them do. On another machine,
    forward the port first: [bold]ssh -L 6480:127.0.0.1:6480 HOST[/].
    """
    from remit.kube.kubeconfig import state_dir_of
    from remit.userpaths import default_state_dir
    from remit.web import login

    where = state_dir or state_dir_of(None) or default_state_dir()
    typer.echo(login.login_url(login.read_page_file(where), time.time()))
