"""``python -m vmnet.probe``: the same as ``vmnet probe``, for programs that start it."""

from __future__ import annotations

import sys

import click

from vmnet.cli.probe import probe
from vmnet.errors import VmnetError

if __name__ == "__main__":
    try:
        probe()
    except VmnetError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.code)
