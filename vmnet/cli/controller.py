"""``vmnet controller``: what our own controller of an OpenFlow fabric knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vmnet.cli import common

if TYPE_CHECKING:
    from controller_bridge.api.client import ControllerClient

LIMIT_S = 10.0
_SOCKET = "unix:/run/vmnet-controller/controller.sock"
Ask = Callable[[str, dict[str, Any]], dict[str, Any]]
_address = click.option(
    "--controller",
    "address",
    default=_SOCKET,
    show_default=True,
    envvar="VMNET_CONTROLLER",
    metavar="ADDRESS",
    help="Where it is asked: unix:PATH, or ssl:HOST[:PORT] with this host's certificate in /etc/vmnet/pki.",
)


@click.group()
def controller() -> None:
    """vmnet-controllerd: switches, links and stations that it knows."""


@controller.command()
@_address
@common.json_option
def status(address: str, as_json: bool) -> None:
    """Switches and how full their tables are, links, hosts, and who is where."""
    found = _ask_all(address)
    if as_json:
        common.print_json(found)
        return
    _show(found)


@controller.command()
@click.argument("macs", metavar="MAC...", nargs=-1, required=True)
@_address
@common.json_option
def release(macs: tuple[str, ...], address: str, as_json: bool) -> None:
    """Let stations go that are bound to a host, as one that has died: they are learned where they speak next."""
    done = _with(address, lambda client: client.ask("release", {"macs": list(macs)}, LIMIT_S))
    if as_json:
        common.print_json(done)
    else:
        click.echo(f"released: {', '.join(done['released']) or 'none, nothing of that was bound'}")


@controller.command()
@click.argument("macs", metavar="MAC...", nargs=-1, required=True)
@_address
@common.json_option
def forget(macs: tuple[str, ...], address: str, as_json: bool) -> None:
    """Forget stations and their addresses, as of devices that were replaced: they are learned when they speak next."""
    done = _with(address, lambda client: client.ask("forget", {"macs": list(macs)}, LIMIT_S))
    if as_json:
        common.print_json(done)
    else:
        click.echo(f"forgotten: {', '.join(done['forgotten']) or 'none, nothing of that was known'}")


def _with(address: str, body: Callable[[ControllerClient], Any]) -> Any:
    from controller_bridge.api.client import ControllerClient, way

    async def run() -> Any:
        client = ControllerClient(way(address))
        try:
            return await body(client)
        finally:
            await client.close()

    return asyncio.run(run())


def _ask_all(address: str) -> dict[str, Any]:
    async def body(client: ControllerClient) -> dict[str, Any]:
        found = await client.ask("status", {}, LIMIT_S)
        after = found.pop("next")
        while after:
            more = await client.ask("status", {"after": after}, LIMIT_S)
            found["stations"] += more["stations"]
            after = more["next"] if more["next"] != after else ""
        return found

    result: dict[str, Any] = _with(address, body)
    return result


def _show(found: dict[str, Any]) -> None:
    from vmnet.report import table

    table.show(
        ("switch", "datapath", "entries", "of others", "limit", "by the controller"),
        [_switch_row(name, one) for name, one in found["switches"].items()],
        "switches",
    )
    click.echo("\nlinks: " + (", ".join(" - ".join(one) for one in found["links"]) or "none"))
    hosts = (f"{name} at {place or '?'}" for name, place in found["hosts"].items())
    click.echo("hosts: " + (", ".join(hosts) or "none"))
    counts = found["counts"]
    click.echo(
        f"packets: {counts['refused']} refused, {counts['forged_lldp']} forged LLDP, {counts['limited']} beyond the limit\n"
    )
    table.show(
        ("station", "place", "bound", "addresses"),
        [_station_row(one) for one in found["stations"]],
        "stations",
    )


def _switch_row(name: str, one: dict[str, Any]) -> list[Any]:
    if not one["connected"]:
        return [name, "away", None, None, None, None]
    return [
        name,
        one["datapath"],
        one["entries"],
        one["entries_of_others"],
        one["entries_limit"],
        one["entries_left_out"],
    ]


def _station_row(one: dict[str, Any]) -> list[Any]:
    bound = "yes" if one["bound"] else "no"
    if one["partner"]:
        bound = f"moving, with {one['partner']}"
    return [one["mac"], one["place"] or "not known yet", bound, " ".join(one["addresses"])]
