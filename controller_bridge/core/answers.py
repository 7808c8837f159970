"""What is sent out because of a packet that the controller was shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller_bridge import fence, setup_frame
from controller_bridge.core import gateway, neighbours
from controller_bridge.core.hosts import Address, Hosts
from controller_bridge.core.links import Links
from controller_bridge.core.member import Member, Send
from controller_bridge.core.neighbours import Said
from controller_bridge.topology import Place

GATEWAY_MAC: Final = bytes.fromhex("02766d677701")
OURS: Final = frozenset({GATEWAY_MAC, fence.SOURCE, setup_frame.SOURCE})
"""Nobody else speaks from these."""


@dataclass(frozen=True)
class Answers:
    hosts: Hosts
    links: Links
    members: Mapping[str, Member]
    gateways: frozenset[Address]

    def ask(self, place: Place, mac: bytes) -> list[Send]:
        """Whether a station is still there: what it answers comes as if it had said it by itself."""
        known = sorted(self.hosts.stations[mac].addresses, key=str)[:2]
        if not known:
            return [Send(place, neighbours.echo_request(mac, GATEWAY_MAC))]
        return [self._question(place, one, mac) for one in known]

    def ask_for(self, address: Address) -> list[Send]:
        """Whether its owner still has it. One whose port is away cannot answer."""
        owner = self.hosts.owner(address)
        return [] if owner is None else [self._question(self.hosts.stations[owner].place, address, owner)]

    def _question(self, place: Place, address: Address, mac: bytes) -> Send:
        own = {one.version: one for one in self.gateways}
        asker = own.get(address.version, type(address)(0))
        return Send(place, neighbours.question(address, GATEWAY_MAC, asker, mac))

    def neighbour(self, place: Place, frame: bytes, said: Said) -> list[Send]:
        """To who said something of addresses, or asked for one."""
        if said.asks is None:
            return self.other(place, frame)
        owner = GATEWAY_MAC if said.asks in self.gateways else self.hosts.owner(said.asks)
        if owner is None:
            return self._everywhere(place, frame)
        if owner == frame[6:12] or said.asker is None:
            return []
        return [Send(place, neighbours.answer(said.asks, owner, frame[6:12], said.asker))]

    def other(self, place: Place, frame: bytes) -> list[Send]:
        """Of what came in at the edge."""
        if frame[0] & 1:
            return self._everywhere(place, frame)
        if frame[:6] == GATEWAY_MAC:
            return self._through_gateway(place, frame)
        return self._onward(frame)

    def _through_gateway(self, place: Place, frame: bytes) -> list[Send]:
        """To who has that address, past tables that have no entry for it. Who is not known is asked for: the next packet finds him."""
        wanted = neighbours.destination(frame)
        if wanted is None:
            return []
        if wanted in self.gateways:
            reply = gateway.answer(frame, self.gateways, GATEWAY_MAC)
            return [Send(place, reply)] if reply is not None else []
        owner = self.hosts.owner(wanted)
        if owner is not None:
            return self._routed(owner, frame)
        own = next((one for one in sorted(self.gateways, key=str) if one.version == wanted.version), None)
        return (
            self._everywhere(place, neighbours.question(wanted, GATEWAY_MAC, own)) if own is not None else []
        )

    def passing(self, frame: bytes) -> list[Send]:
        """On its way from switch to switch, and that one had no entry for it."""
        if frame[:6] != GATEWAY_MAC:
            return self._onward(frame)
        wanted = neighbours.destination(frame)
        owner = self.hosts.owner(wanted) if wanted is not None else None
        return self._routed(owner, frame) if owner is not None else []

    def _routed(self, owner: bytes, frame: bytes) -> list[Send]:
        return self._onward(owner + GATEWAY_MAC + frame[12:])

    def _onward(self, frame: bytes) -> list[Send]:
        """To where its station is, past tables that do not know it yet."""
        station = self.hosts.stations.get(frame[:6])
        return (
            [Send(station.place, frame)]
            if station is not None and station.place.switch in self.members
            else []
        )

    def _everywhere(self, place: Place, frame: bytes) -> list[Send]:
        """Out of every port at the edge but the one it came by; never over a link, so nothing can go round."""
        return [Send(one, frame) for one in self.edges() if one != place]

    def edges(self) -> list[Place]:
        ends = self.links.ends()
        every = [Place(name, port) for name, member in self.members.items() for port in member.live()]
        return [one for one in every if one not in ends]
