"""``vmnet doctor``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vmnet.cli import common
from vmnet.errors import ExitCode


@click.command()
@common.json_option
@common.socket_option
def doctor(as_json: bool, socket: Path) -> None:
    """Check what migrations need: kernel, libvirt, hooks, journal, firewall, and each peer's daemon, ports and libvirt.

    Exit code 5 if something is missing.
    """
    checks = common.client(socket).request("doctor")["checks"]
    if as_json:
        common.print_json(checks)
    else:
        width = max(len(one["check"]) for one in checks)
        for one in checks:
            click.echo(f"{'ok ' if one['ok'] else 'BAD'}  {one['check']:{width}} {one['detail']}")
    if not all(one["ok"] for one in checks):
        sys.exit(ExitCode.UNAVAILABLE)
