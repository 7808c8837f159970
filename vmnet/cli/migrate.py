"""``vmnet migrate VM DEST``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vmnet.cli import common, migration


@click.command()
@click.argument("vm")
@click.argument("destination")
@click.option("--dry-run", is_flag=True, help="Print the plan, every action in words, and change nothing.")
@click.option(
    "--max-downtime", type=click.IntRange(1, 60_000), metavar="MS", help="Stop the guest when this will do."
)
@click.option(
    "--persistent/--transient",
    default=None,
    help="Define the VM at DESTINATION, or do not. By default it is defined there if it was here.",
)
@click.option("--keep-source", is_flag=True, help="Leave the VM's definition here as well.")
@common.allow_unprotected_option
@common.json_option
@common.socket_option
def migrate(
    vm: str,
    destination: str,
    dry_run: bool,
    max_downtime: int | None,
    persistent: bool | None,
    keep_source: bool,
    allow_unprotected: bool,
    as_json: bool,
    socket: Path,
) -> None:
    """Move the running VM to host DESTINATION, live.

    Exit codes: 0 moved and nothing lost; 4 unknown VM or host; 5 a daemon or libvirt is away; 6 refused, nothing touched;
    7 failed, the VM runs on here; 8 moved, but not clean; 130 aborted.
    """
    if dry_run:
        from vmnet.cli.plan import show_plan

        plan = common.client(socket).request(
            "plan", vm=vm, destination=destination, allow_unprotected=allow_unprotected
        )
        show_plan(plan, as_json)
        return
    options = {
        "max_downtime_ms": max_downtime,
        "persistent": persistent,
        "keep_source": keep_source,
        "allow_unprotected": allow_unprotected,
    }
    sys.exit(migration.run(str(socket), vm, destination, as_json, **options))
