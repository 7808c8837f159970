"""By which ports packets for a station will begin a new way. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from controller_bridge.core.desired import Table, station_of
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Command
from controller_bridge.openflow.match import Field
from controller_bridge.paths import Changes
from controller_bridge.topology import Place, Topology


def new_ways(tables: Mapping[str, Table], topology: Topology, level: Changes) -> dict[Place, set[bytes]]:
    """Ports to other switches that lead to stations from when ``level`` is done, and do not before: with the MAC addresses."""
    found: dict[Place, set[bytes]] = {}
    for switch, changes in level.items():
        for command, flow, _mask in changes:
            mac, outputs = station_of(flow), action.outputs(flow.instructions)
            there = tables.get(switch, {}).get(flow.place)
            if (
                command is Command.DELETE_STRICT
                or mac is None
                or len(outputs) != 1
                or flow.match.get(Field.IN_PORT) is not None  # a guard: there are new and old ways among them
                or (there is not None and there.instructions == flow.instructions)
            ):
                continue
            place = Place(switch, outputs[0])
            if place in topology.beyond:
                found.setdefault(place, set()).add(mac)
    return found
