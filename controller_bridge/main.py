"""Entry point of ``vmnet-controllerd``."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller_bridge import address
from controller_bridge import settings as settings_
from controller_bridge.address import Address
from controller_bridge.api.words import SOCKET
from controller_bridge.settings import Settings
from vmnet import service_manager
from vmnet.errors import UnavailableError, VmnetError

if TYPE_CHECKING:
    from controller_bridge.api.door import Door


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=settings_.DEFAULT,
    show_default=True,
    help="Settings.",
)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--check", is_flag=True, help="Only say whether the settings are good.")
def main(config: Path, log_level: str, check: bool) -> None:
    """The controller of an OpenFlow fabric: shortest paths for everybody, and nothing wiped when it or a switch starts again."""
    try:
        found = settings_.read(config)
        if check:
            click.echo(f"{config}: good")
            return
        logging.basicConfig(
            level=log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        asyncio.run(_serve(found))
    except VmnetError as error:
        click.echo(f"vmnet-controllerd: {error}", err=True)
        raise SystemExit(int(error.code)) from None


async def _serve(found: Settings) -> None:
    from controller_bridge.api.desk import Desk
    from controller_bridge.api.door import Door
    from controller_bridge.controller import Controller
    from controller_bridge.core.core import Core
    from controller_bridge.core.places import Places
    from vmnet.peer.credentials import Credentials
    from vmnet.peer.identity import Barred

    core = Core(
        settings_.lldp_key(found.key),
        found.gateways,
        Places(found.hosts, found.outside, found.links),
        found.table_sizes,
        float(found.packets_per_s),
    )
    controller = Controller(core, found.names)
    for_hosts, for_switches = _tls(found, found.api), _for_switches(found)
    door = Door(Desk(controller), found.hosts, for_hosts)
    await controller.start(found.listen, for_switches)
    try:
        local = await _open_local(door, found)
        await door.open(found.api)
    except VmnetError:
        await controller.close()
        raise
    listening = f"listening at {', '.join(map(str, (*found.listen, *local, *found.api)))}"
    click.echo(listening, err=True)
    service_manager.ready(listening)
    stop = asyncio.Event()

    def end(barred: Barred) -> None:
        door.end(barred)
        controller.end(barred)

    credentials = Credentials(found.tls, [for_hosts, for_switches], end, controller.moves)
    credentials.follow()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, credentials.look)
    await stop.wait()
    service_manager.stopping()
    credentials.close()
    await door.close()
    await controller.close()


async def _open_local(door: Door, found: Settings) -> tuple[Address, ...]:
    """People on this machine ask there, whatever is configured. Another controller on it may have the place."""
    local = address.parse(f"unix:{SOCKET}")
    if local in found.api:
        return ()
    try:
        await door.open([local])
    except UnavailableError as error:
        click.echo(f"`vmnet controller` needs --controller here: {error}", err=True)
        return ()
    return (local,)


def _tls(found: Settings, listen: Iterable[Address]) -> ssl.SSLContext | None:
    from vmnet.peer.identity import server_context

    return server_context(found.tls) if any(one.kind == "ssl" for one in listen) else None


def _for_switches(found: Settings) -> ssl.SSLContext | None:
    """Open vSwitch 3.1 speaks TLS 1.2."""
    context = _tls(found, found.listen)
    if context is not None:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


if __name__ == "__main__":
    main()
