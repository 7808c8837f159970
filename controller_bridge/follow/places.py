"""Where those a VM speaks with are: the port at which packets to them leave the fabric, by the switches' own tables. Pure.

First the packets are followed from the host that the VM is on. Where that leads nowhere (a switch that asks its controller, floods, or
learns by itself), an entry that sends an address, or the MAC address that goes with it, out of the fabric says it as well, if all that
do agree: so our own controller reads its stations back (:meth:`controller_bridge.core.core.Core._adopt`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from controller_bridge import trace
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Flow
from controller_bridge.openflow.match import Field
from controller_bridge.topology import Place, Topology
from controller_bridge.trace import Packet

Tables = Mapping[str, Sequence[Flow]]
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_ADDRESSES: Final = (Field.IPV4_DST, Field.IPV6_DST)


@dataclass(frozen=True)
class Seen:
    """``address``: an IP or a MAC address, as text. ``mac``: the one that its frames bear, its own or a gateway's."""

    address: str
    mac: bytes
    bytes_per_s: float


class Book:
    """What entries say of destinations, read once: tables are long, and clients many. Addresses are packed."""

    def __init__(self, tables: Tables, topology: Topology) -> None:
        """PeerError if a switch's entry is malformed."""
        self.addresses: dict[bytes, set[Place]] = {}
        """Where an entry for just that address leads out of the fabric; ``macs``: for that MAC address."""
        self.macs: dict[bytes, set[Place]] = {}
        self.owners: dict[bytes | None, set[bytes]] = {}
        """MAC addresses that entries give to an address; None: to whatever they match."""
        self._tables: dict[str, dict[tuple[bytes | None, bytes | None], list[Flow]]] = {}
        self._beyond = topology.beyond
        for switch, table in tables.items():
            for one in table:
                self._read(switch, one)

    def _read(self, switch: str, one: Flow) -> None:
        fields = one.match.fields()
        address = next((value for name in _ADDRESSES if (value := _whole(fields, name))), None)
        mac, given = _whole(fields, Field.ETH_DST), action.sets(one.instructions, Field.ETH_DST)
        self._tables.setdefault(switch, {}).setdefault((mac, address), []).append(one)
        if given:
            self.owners.setdefault(address, set()).add(given)
        ports = action.outputs(one.instructions)
        if len(ports) != 1 or ports[0] >= action.PORT_MAX:
            return
        place = Place(switch, ports[0])
        if place in self._beyond:
            return
        if address:
            self.addresses.setdefault(address, set()).add(place)
        out = given or mac
        if out and (given or not address):  # one by both may mean a gateway's MAC address
            self.macs.setdefault(out, set()).add(place)

    def towards(self, address: bytes | None, mac: bytes) -> Tables:
        """The tables, without entries that packets to there cannot meet, whatever MAC addresses they get on their way."""
        macs = {mac, *self.owners.get(address, ()), *self.owners.get(None, ())}
        keys = dict.fromkeys((one, at) for one in (*sorted(macs), None) for at in (address, None))
        return {
            switch: [flow for key in keys for flow in table.get(key, ())]
            for switch, table in self._tables.items()
        }


def _whole(fields: Mapping[int, tuple[bytes, bytes | None]], name: Field) -> bytes | None:
    value, mask = fields.get(name, (None, None))
    return value if mask is None else None


def locate(
    seen: Iterable[Seen], tables: Tables, topology: Topology, start: Place | None
) -> tuple[dict[str, Place], dict[str, str]]:
    """Address -> place, and of those that cannot be found, address -> why. ``start``: where the VM's host is, if that is known."""
    known = Book(tables, topology)
    found: dict[str, Place] = {}
    why: dict[str, str] = {}
    for one in seen:
        places = _followed(one, known, topology, start) or _told(one, known)
        if len(places) == 1:
            found[one.address] = places.pop()
        elif places:
            ports = ", ".join(f"{place.switch} port {place.port}" for place in sorted(places))
            why[one.address] = f"the switches' tables say that it is at {ports}"
        else:
            why[one.address] = "no switch's table says where it is"
    return found, why


def packet(one: Seen) -> Packet:
    """From the VM to it."""
    made: dict[int, bytes] = {Field.ETH_DST: one.mac}
    address = _packed(one.address)
    if address is not None:
        six = len(address) == 16
        made[Field.ETH_TYPE] = _IPV6 if six else _IPV4
        made[Field.IPV6_DST if six else Field.IPV4_DST] = address
    return made


def _followed(one: Seen, known: Book, topology: Topology, start: Place | None) -> set[Place]:
    if start is None:
        return set()
    end = trace.walk(known.towards(_packed(one.address), one.mac), topology, start, packet(one)).end
    return set() if end is None else {end}


def _told(one: Seen, known: Book) -> set[Place]:
    """By its address; by the MAC address that entries give to it; by the one that its frames bear."""
    address = _packed(one.address)
    if address is not None:
        if address in known.addresses:
            return set(known.addresses[address])
        owners = known.owners.get(address, set())
        if places := {place for mac in owners for place in known.macs.get(mac, ())}:
            return places
    return set(known.macs.get(one.mac, ()))


def _packed(text: str) -> bytes | None:
    """None: it is a MAC address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.packed if not isinstance(address, IPv6Address) or address.scope_id is None else None
