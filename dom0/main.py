"""Entry point of ``vmnet-dom0d``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path

import click

from vmnet.errors import VmnetError

_SWITCH_INTERVAL_S = 0.0005
_NICE = -10
DEFAULT_CONFIG = Path("/etc/vmnet/vmnet.toml")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="Configuration file.",
)
@click.option("--check", is_flag=True, help="Only say whether the configuration is good.")
def main(config: Path, check: bool) -> None:
    """The forwarding daemon of one host: keeps VMs' packets safe while the VMs move."""
    from vmnet.config import load

    try:
        settings = load(config)
        if check:
            click.echo(f"{config}: good")
            return
        from dom0.daemon import Daemon

        logging.basicConfig(
            level=settings.daemon.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        asyncio.run(_serve(Daemon, settings))
    except VmnetError as error:
        click.echo(f"vmnet-dom0d: {error}", err=True)
        raise SystemExit(int(error.code)) from None


async def _serve(kind: type, settings: object) -> None:
    """With precedence: packets wait for this process while a VM stands still."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with contextlib.suppress(PermissionError):
        os.nice(_NICE)
    await kind(settings).run()


if __name__ == "__main__":
    main()
