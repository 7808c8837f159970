"""``vmnet plan VM DEST``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vmnet.cli import common


@click.command()
@click.argument("vm")
@click.argument("destination")
@common.allow_unprotected_option
@common.json_option
@common.socket_option
def plan(vm: str, destination: str, allow_unprotected: bool, as_json: bool, socket: Path) -> None:
    """Say what migrating VM to DESTINATION would do, in words, or why it cannot be. Touches nothing."""
    found = common.client(socket).request(
        "plan", vm=vm, destination=destination, allow_unprotected=allow_unprotected
    )
    show_plan(found, as_json)


def show_plan(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        common.print_json(found)
        return
    head, *steps = found["steps"]
    click.echo(head)
    for nth, line in enumerate(steps, 1):
        click.echo(f"{nth:3}. {line}")
    for interface in found["unprotected"]:
        click.echo(f"not protected: {interface}: what comes for it while the VM moves is lost")
    for note in found["notes"]:
        click.echo(f"note: {note}")
