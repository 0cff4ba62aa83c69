"""`remit page`: the live page of a cluster, or a link that logs in to that of `remit up`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from remit import threads
from remit.cli import completion, options


def page(
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace",
            "-n",
            metavar="NAME",
            help="Of a cluster, this namespace alone. Repeatable. By default all, or the context's where you may not"
            " list all.",
            rich_help_panel=options.SERVER,
            autocompletion=completion.namespaces,
            callback=options.namespaces,
        ),
    ] = None,
    port: Annotated[
        int | None,
        options.port_option(
            "Of a cluster: the port of 127.0.0.1; 0 picks one. By default 6480, or another that is free."
        ),
    ] = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: Annotated[
        Path | None, options.state_dir_option("Where a remit up keeps its state, whose page is meant.")
    ] = None,
    operator_namespace: options.OperatorNamespace = "remit-system",
) -> None:
    """Show what happens as a live page in a browser.

    With the kubeconfig of a cluster, serve it on this machine until Ctrl-C, and print a link that logs in, once and
    within 15 minutes. The page reads and changes everything with your own credentials, and shows what you may see.

    [bold]remit up[/] serves its page itself: with its kubeconfig, or its [bold]--state-dir[/], print a link that logs
    in to that one. Whoever has the link may do there what the kubeconfig of [bold]remit up[/] lets them do. On another
    machine, forward the port first: [bold]ssh -L 6480:127.0.0.1:6480 HOST[/].
    """
    from remit.cli.connect import chosen
    from remit.errors import InvalidInput
    from remit.kube.kubeconfig import state_dir_of
    from remit.userpaths import default_state_dir
    from remit.web import login

    used = None if state_dir else chosen(kubeconfig)
    where = state_dir or state_dir_of(used, context)
    if where is not None:
        if namespace or port is not None:
            raise InvalidInput(
                f"remit up serves its page itself, from {where}: --namespace and --port are for a cluster's; say where"
                " that of remit up is with remit up --page-address"
            )
        typer.echo(login.login_url(login.read_page_file(where), time.time()))
        return
    if used is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        raise InvalidInput(
            "the login here is the service account of a pod, which is nobody's own; run remit page on your machine, or"
            " name a kubeconfig with --kubeconfig"
        )
    if (own := default_state_dir() / login.PAGE_FILE).is_file():
        typer.echo(f"(remit up runs here, too: remit page --state-dir {own.parent})", err=True)
    threads.run(_serve(used, context, port, tuple(namespace or ()), operator_namespace))


async def _serve(
    kubeconfig: Path | None, context: str | None, port: int | None, namespaces: tuple[str, ...], operator_namespace: str
) -> None:
    from remit.cli.clusterpage import serve
    from remit.kube.access import Access
    from remit.web.caches import Scope

    access = await Access.load(kubeconfig, context)
    scope = Scope(namespaces, "" if namespaces else access.namespace)
    await serve(access, port, scope, operator_namespace)
