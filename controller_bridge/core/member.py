"""A switch as the controller's core knows it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from controller_bridge.core.desired import Table
from controller_bridge.core.room import Room
from controller_bridge.openflow import action
from controller_bridge.openflow.multipart import Port
from controller_bridge.topology import Place


class Send(NamedTuple):
    """A frame out of a switch's port."""

    place: Place
    frame: bytes


@dataclass
class Member:
    """A switch that is connected. ``table``: our entries on it. ``left_out``: those that there is no room for."""

    datapath: int
    ports: dict[int, Port]
    table: Table
    room: Room = field(default_factory=Room)
    left_out: int = 0

    def live(self) -> list[int]:
        return [one.number for one in self.ports.values() if one.live and one.number < action.PORT_MAX]
