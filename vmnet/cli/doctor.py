"""``vmnet doctor``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from vmnet.cli import common
from vmnet.errors import ExitCode


@click.command()
@common.json_option
@common.socket_option
def doctor(as_json: bool, socket: Path) -> None:
    """Check what migrations need: kernel, libvirt, hooks, journal, firewall, and each peer's daemon, ports and libvirt.

    A line begins with "ok", with "BAD", or with "?" where something could not be tested. Exit code 5 if something is BAD.
    """
    checks = common.client(socket).request("doctor")["checks"]
    if as_json:
        common.print_json(checks)
    else:
        width = max(len(one["check"]) for one in checks)
        for one in checks:
            click.echo(f"{mark(one):3}  {one['check']:{width}} {one['detail']}")
    if not all(one["ok"] for one in checks):
        sys.exit(ExitCode.UNAVAILABLE)


def mark(check: dict[str, Any]) -> str:
    """How the line of a check begins. A daemon of an older version does not say what it could not test."""
    if not check["ok"]:
        return "BAD"
    return "ok" if check.get("tested", True) else "?"
