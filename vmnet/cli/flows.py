"""``vmnet flows``: the fabric's flows, the paths they take, and other paths for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vmnet.cli import common

if TYPE_CHECKING:
    from controller_bridge.by_hand import Group
    from controller_bridge.connected import Connected
    from controller_bridge.trace import Walk

T = TypeVar("T")
_fabric = click.option(
    "--fabric",
    "file",
    type=click.Path(path_type=Path),
    default=Path("/etc/vmnet/fabric.toml"),
    show_default=True,
    envvar="VMNET_FABRIC",
    help="Which switches there are, and their links.",
)


@click.group()
def flows() -> None:
    """OpenFlow switches without a controller of their own: what they do, and how to change it without losing a packet."""


def _with_fabric(file: Path, body: Callable[[Connected], Awaitable[T]]) -> T:
    from controller_bridge import fabric
    from controller_bridge.connected import Connected

    known = fabric.read(file)

    async def run() -> T:
        connected = await Connected.to(known)
        try:
            return await body(connected)
        finally:
            connected.close()

    return asyncio.run(run())


@flows.command()
@click.argument("switch", required=False)
@_fabric
@common.json_option
def show(switch: str | None, file: Path, as_json: bool) -> None:
    """The flows of SWITCH, or of all, and how many packets each has carried."""
    from controller_bridge.openflow.text import flow_text, match_text
    from vmnet.errors import NotFoundError

    async def body(connected: Connected) -> None:
        if switch is not None and switch not in connected.switches:
            raise NotFoundError(f"no switch {switch!r}", f"known are {', '.join(connected.switches)}")
        for name, found in (await connected.tables()).items():
            if switch not in (None, name):
                continue
            numbers = {number: port for port, number in connected.ports[name].items()}
            for one in sorted(
                found, key=lambda one: (one.flow.table, -one.flow.priority, one.flow.match.oxm)
            ):
                if as_json:
                    common.print_json(
                        {
                            "switch": name,
                            "table": one.flow.table,
                            "priority": one.flow.priority,
                            "match": match_text(one.flow.match),
                            "cookie": one.flow.cookie,
                            "packets": one.packets,
                            "bytes": one.bytes,
                            "does": flow_text(one.flow, numbers).rpartition(" -> ")[2],
                        }
                    )
                else:
                    click.echo(f"{name}  {flow_text(one.flow, numbers)}  ({one.packets} packets)")

    _with_fabric(file, body)


@flows.command()
@click.argument("start", metavar="SWITCH:PORT")
@click.argument("fields", metavar="[FIELD=VALUE]...", nargs=-1)
@_fabric
@common.json_option
def path(start: str, fields: tuple[str, ...], file: Path, as_json: bool) -> None:
    """Which way packets take that come in at SWITCH:PORT, by the switches' own tables.

    FIELDs say which packets (eth_dst=52:54:00:00:00:01, nw_dst=10.0.0.1, udp …); without any, each entry they may meet is followed.
    """
    from controller_bridge import fabric
    from controller_bridge.by_hand import one_walk
    from controller_bridge.openflow.text import match_of, match_text

    wanted = match_of(fields)

    async def body(connected: Connected) -> None:
        place = connected.place(fabric.end(start, connected.switches))
        tables = {name: [one.flow for one in some] for name, some in (await connected.tables()).items()}
        for walk in one_walk(tables, connected, place, wanted):
            what = match_text(wanted) or (match_text(walk.entries[0].match) if walk.entries else "")
            if as_json:
                common.print_json({"packets": what, **_walk_json(walk, connected)})
            else:
                click.echo(f"{what or 'everything'}: {_walk_text(walk, connected)}")

    _with_fabric(file, body)


def _walk_text(walk: Walk, connected: Connected) -> str:
    from controller_bridge.topology import Place

    way = " - ".join(hop.switch for hop in walk.path)
    if walk.end is None:
        return f"{way or 'nowhere'}; {walk.why}"
    return f"{connected.name(Place(walk.path[0].switch, walk.path[0].in_port))} - {way} - {connected.name(walk.end)}"


def _walk_json(walk: Walk, connected: Connected) -> dict[str, Any]:
    return {
        "path": [hop._asdict() for hop in walk.path],
        "end": None if walk.end is None else connected.name(walk.end),
        "why": walk.why,
    }


@flows.command()
@click.argument("start", metavar="[SWITCH:PORT]", required=False)
@click.argument("fields", metavar="[FIELD=VALUE]...", nargs=-1)
@click.option("--via", multiple=True, metavar="SWITCH", help="Through this switch; several: in this order.")
@click.option("--avoid", multiple=True, metavar="SWITCH", help="Not through this one.")
@click.option("--dry-run", is_flag=True, help="Only say what would move.")
@_fabric
@common.json_option
def migrate(
    start: str | None,
    fields: tuple[str, ...],
    via: tuple[str, ...],
    avoid: tuple[str, ...],
    dry_run: bool,
    file: Path,
    as_json: bool,
) -> None:
    """Move flows to another path, without losing a packet.

    Those that come in at SWITCH:PORT, or all; only those whose entries have the FIELDs. `--avoid s2` alone empties the switch s2.
    """
    from controller_bridge import fabric
    from controller_bridge.by_hand import edges, groups, move
    from controller_bridge.openflow.text import match_of
    from vmnet.errors import NotFoundError

    if not via and not avoid:
        raise click.UsageError("say where the flows are to go: --via SWITCH or --avoid SWITCH")
    if start is not None and ("=" in start or ":" not in start):
        fields = (start, *fields)
        start = None
    wanted = match_of(fields)

    async def body(connected: Connected) -> None:
        if unknown := {*via, *avoid} - connected.switches.keys():
            raise NotFoundError(f"no switch {min(unknown)!r}", f"known are {', '.join(connected.switches)}")
        starts = (
            edges(connected) if start is None else [connected.place(fabric.end(start, connected.switches))]
        )
        tables = {name: [one.flow for one in some] for name, some in (await connected.tables()).items()}
        found = groups(tables, connected, starts, wanted, via, frozenset(avoid))
        if not found:
            click.echo("nothing moves: no flow takes another path by that", err=True)
        if found and not dry_run:
            await move(connected, found)
        for group in found:
            _tell(group, dry_run, as_json)

    _with_fabric(file, body)


def _tell(group: Group, dry_run: bool, as_json: bool) -> None:
    ways = [[hop.switch for hop in path] for path in (group.old, group.new)]
    if as_json:
        common.print_json({"flows": group.flows, "from": ways[0], "to": ways[1], "moved": not dry_run})
        return
    verb = "would move" if dry_run else "moved"
    click.echo(
        f"{verb} {group.flows} flow{'s' * (group.flows != 1)}: {' - '.join(ways[0])} -> {' - '.join(ways[1])}"
    )
