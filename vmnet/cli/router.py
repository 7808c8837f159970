"""``vmnet router``: which VMs are virtual routers, whose data plane this host carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vmnet.cli import common
from vmnet.router import Bypass


@click.group()
def router() -> None:
    """Virtual routers: the VM keeps the control plane, this host forwards for it.

    A router VM goes on forwarding while it migrates, restarts its routing daemon, or has died.
    """


@router.command()
@click.argument("vm")
@click.option(
    "--management",
    required=True,
    metavar="INTERFACE",
    help="MAC, bridge or tap of the interface over which VM's routing daemon tells this host its routes.",
)
@click.option(
    "--keep",
    "keep_s",
    type=click.IntRange(0, 86_400),
    metavar="SECONDS",
    help="How long forwarding goes on when VM has died; default: [router] keep_s.",
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="INTERFACE=ADDRESS/LENGTH",
    help="An address of VM, if vmnet's agent does not run in it. Can be given several times.",
)
@click.option(
    "--bypass",
    multiple=True,
    type=click.Choice([kind.value for kind in Bypass]),
    help="Forward here although VM's kernel does this to packets, and does it no more then. Can be given several times.",
)
@common.json_option
@common.socket_option
def add(
    vm: str,
    management: str,
    keep_s: int | None,
    addresses: tuple[str, ...],
    bypass: tuple[str, ...],
    as_json: bool,
    socket: Path,
) -> None:
    """Make VM a virtual router; its metadata say so from now on, on every host it goes to.

    This host forwards for VM only while VM's kernel does nothing else to the packets: see the limits in docs/routers.md.
    """
    pairs = []
    for one in addresses:
        interface, found, address = one.rpartition("=")
        if not found:
            raise click.BadParameter(f"{one!r} is not INTERFACE=ADDRESS/LENGTH", param_hint="--address")
        pairs.append([interface, address])
    answer = common.client(socket).request(
        "router-add", vm=vm, management=management, keep_s=keep_s, addresses=pairs, bypass=list(bypass)
    )
    if as_json:
        common.print_json(answer)
    else:
        when = "as soon as its routes are in" if answer["running"] else "when it starts"
        click.echo(f"{answer['vm']} is a router; this host forwards for it {when}")


@router.command()
@click.argument("vm")
@common.json_option
@common.socket_option
def remove(vm: str, as_json: bool, socket: Path) -> None:
    """VM forwards by itself again."""
    answer = common.client(socket).request("router-remove", vm=vm)
    if as_json:
        common.print_json(answer)
    else:
        click.echo(f"{answer['vm']} is no router any more")


@router.command("list")
@common.json_option
@common.socket_option
def list_(as_json: bool, socket: Path) -> None:
    """The routers whose data plane is on this host."""
    found = common.client(socket).request("router-list")
    if as_json:
        common.print_json(found)
        return
    for one in found["routers"]:
        click.echo(_line(one))
    if not found["routers"]:
        click.echo(f"no data plane on {found['host']}; see `vmnet router add`")


def _line(one: dict[str, Any]) -> str:
    where = "" if one["vm_here"] else ", its VM is gone"
    routes = "all routes" if one["synchronised"] else "routes are coming"
    packets = sum(port["data"] for port in one["ports"].values())
    why = "".join(
        f"\n  {what} {text}"
        for what, texts in (("not here:", one["reasons"]), ("bypassed:", one["bypassed"]))
        for text in texts
    )
    return (
        f"{one['name']}: namespace {one['namespace']}, data: {one['data']}, {one['fib']['routes']} routes ({routes}), "
        f"{packets} packets forwarded{where}{why}"
    )
