"""``vmnet status``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vmnet.cli import common


@click.command()
@common.json_option
@common.socket_option
def status(as_json: bool, socket: Path) -> None:
    """Migrations under way, past ones, and where VMs are bound."""
    found = common.client(socket).request("status")
    if as_json:
        common.print_json(found)
        return
    libvirt = "answers" if found["libvirt"] else "is away"
    click.echo(f"host {found['host']}: libvirt {libvirt}, {len(found['migrations'])} migrations under way")
    for one in found["migrations"]:
        click.echo(f"  now   {_line(one)}")
    for one in found["history"]:
        if one["finished"] is not None:
            click.echo(f"  past  {_line(one)}")
    for one in found["bindings"]:
        home = f", its LAN is at {one['home']}" if one["home"] else ""
        click.echo(f"  bound {one['name']} to {one['host']}, generation {one['generation']}{home}")


def _line(one: dict[str, Any]) -> str:
    error = f": {one['error']}" if one["error"] else ""
    return f"{one['name']} {one['source']} -> {one['destination']} ({one['role']}, {one['mode']}) {one['state']}{error}"
