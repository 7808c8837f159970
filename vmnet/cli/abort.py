"""``vmnet abort VM``."""

from __future__ import annotations

from pathlib import Path

import click

from vmnet.cli import common


@click.command()
@click.argument("vm")
@common.json_option
@common.socket_option
def abort(vm: str, as_json: bool, socket: Path) -> None:
    """Stop VM's migration from this host; it runs on here, its network as before."""
    answer = common.client(socket).request("abort", vm=vm)
    if as_json:
        common.print_json(answer)
    else:
        click.echo(f"aborting the migration of {answer['vm']}")
