"""What the controller knows, for people and machines. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from controller_bridge.api.words import MOST_STATIONS
from controller_bridge.core.core import Core
from controller_bridge.core.hosts import NOWHERE, Station
from controller_bridge.core.marks import numbers
from controller_bridge.topology import Place


def status(
    core: Core, known: Iterable[str], active: Mapping[str, int | None], after: bytes
) -> dict[str, Any]:
    """``active``: entries in each switch's table, whosever they are. ``after``: with which station it goes on; ``next``: with
    which the answer to follow would, "" if this is the last."""
    macs = [mac for mac in sorted(core.hosts.stations) if mac > after]
    partners = {number: name for name, number in numbers(core.places.hosts).items()}
    return {
        "switches": {name: _switch(core, name, active.get(name)) for name in sorted({*known, *core.members})},
        "links": [[_name(core, one), _name(core, other)] for one, other in core.links.up()],
        "hosts": {
            name: _name(core, place) if (place := core.places.of_host(name)) is not None else None
            for name in sorted(core.places.hosts)
        },
        "stations": [_station(core, mac, core.hosts.stations[mac], partners) for mac in macs[:MOST_STATIONS]],
        "station_count": len(core.hosts.stations),
        "next": macs[MOST_STATIONS - 1].hex(":") if len(macs) > MOST_STATIONS else "",
        "counts": asdict(core.counts),
    }


def _switch(core: Core, name: str, active: int | None) -> dict[str, Any]:
    member = core.members.get(name)
    if member is None:
        return {"connected": False}
    ours = len(member.table)
    return {
        "connected": True,
        "datapath": f"{member.datapath:016x}",
        "entries": ours,
        "entries_of_others": None if active is None else max(0, active - ours),
        "entries_limit": member.room.limit,
        "entries_left_out": member.left_out,
    }


def _station(core: Core, mac: bytes, one: Station, partners: Mapping[int, str]) -> dict[str, Any]:
    return {
        "mac": mac.hex(":"),
        "place": None if one.place == NOWHERE else _name(core, one.place),
        "addresses": sorted(map(str, one.addresses)),
        "bound": one.bound,
        "move": one.move or None,
        "partner": partners.get(one.mark.partner),
    }


def _name(core: Core, place: Place) -> str:
    """As people write it."""
    member = core.members.get(place.switch)
    port = member.ports.get(place.port) if member is not None else None
    return f"{place.switch}:{port.name if port is not None and port.name else place.port}"
