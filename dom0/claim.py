"""What the two daemons say to each other about one migration, checked as it comes in: a peer is authenticated, not infallible."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, TypeVar

from vmnet.domain_xml import DEVICE_NAME
from vmnet.errors import PeerError

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_MARKER = re.compile(r"([0-9a-f]{32})?\Z")
_ID = re.compile(r"[0-9a-f-]{36}\Z")
MOST_INTERFACES, MOST_STATIONS, MOST_ADDRESSES = 64, 64, 64
_LAST_VLAN = 4094
_LONGEST_TEXT, _LONGEST_REASON = 255, 200
_LAST_VNI = 0xFFFFFF
_LAST_GENERATION = (1 << 53) - 2
Kind = TypeVar("Kind", str, int)


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@dataclass(frozen=True)
class Wire:
    """One interface as both hosts agree on it. ``vni``: the tunnel's id.

    ``stretched``: its LAN, ``segment``, is not at the destination.

    ``link_vni``: the tunnel's id of a router's link, whose data plane moves apart from the VM; 0: it has none.
    """

    mac: str
    vni: int
    stretched: bool
    segment: str = ""
    link_vni: int = 0

    @property
    def lan_vni(self) -> int:
        """Of the tunnel that stays if the LAN is not at the destination."""
        return self.link_vni or self.vni

    @property
    def far_guest(self) -> bool:
        """The guest itself, rather than its data plane, hangs on the tunnel that stays."""
        return self.stretched and not self.link_vni

    @property
    def mac_bytes(self) -> bytes:
        return mac_bytes(self.mac)


@dataclass(frozen=True)
class Agreement:
    """The source's answer to a claim: this migration, its wires, and what the destination has to know."""

    id: str
    mode: str
    wires: tuple[Wire, ...]
    tunnel_address: str
    generation: int
    segment: str
    home: str
    marker: str = ""
    """What the source's own end marker says, hexadecimal; empty: the guest's announcement, come back by the old path, is it."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "wires": [asdict(one) for one in self.wires]}


def field(message: Mapping[str, Any], name: str, kind: type[Kind], low: int = 0, high: int = 1 << 62) -> Kind:
    """PeerError unless ``name`` is there, is a ``kind``, and (a number) is within its bounds."""
    value = message.get(name)
    if type(value) is not kind:
        raise PeerError(
            f"the peer's message has no usable '{name}'", "do both daemons have the same version?"
        )
    if isinstance(value, int) and not low <= value <= high:
        raise PeerError(f"the peer's '{name}' is {value}, not {low} to {high}")
    if isinstance(value, str) and (len(value) > _LONGEST_TEXT or not value.isprintable()):
        raise PeerError(f"the peer's '{name}' is too long, or has characters that cannot be printed")
    return value


def reason_field(message: Mapping[str, Any]) -> str:
    """Why the peer gives up: at most 200 characters on one line, whatever it sends."""
    value = message.get("reason")
    return (
        "".join(filter(str.isprintable, value[:_LONGEST_REASON])) if isinstance(value, str) else "no reason"
    )


def bridge_name(raw: object) -> str:
    """PeerError unless it is a name such as devices have."""
    if not isinstance(raw, str) or not DEVICE_NAME.match(raw):
        raise PeerError("the peer names a bridge with an impossible name")
    return raw


def uuid_field(message: Mapping[str, Any], name: str) -> str:
    value = field(message, name, str)
    if not _ID.match(value):
        raise PeerError(f"the peer's '{name}' is no UUID")
    return value


def mac_field(message: Mapping[str, Any]) -> str:
    value = field(message, "mac", str)
    if not _MAC.match(value):
        raise PeerError("the peer's 'mac' is no MAC address")
    return value


def address_field(message: Mapping[str, Any], name: str) -> str:
    try:
        return str(ip_address(field(message, name, str)))
    except ValueError:
        raise PeerError(f"the peer's '{name}' is no IP address") from None


def _wire(raw: Mapping[str, Any]) -> Wire:
    return Wire(
        mac_field(raw),
        field(raw, "vni", int, 1, _LAST_VNI),
        raw.get("stretched") is True,
        field(raw, "segment", str),
        field(raw, "link_vni", int, 0, _LAST_VNI),
    )


def agreement(message: Mapping[str, Any]) -> Agreement:
    """PeerError if any part is missing or out of bounds."""
    raw = message.get("wires")
    if (
        not isinstance(raw, list)
        or not 0 < len(raw) <= MOST_INTERFACES
        or not all(isinstance(one, dict) for one in raw)
    ):
        raise PeerError("the peer's 'wires' are no list of interfaces")
    wires = tuple(_wire(one) for one in raw)
    mode = field(message, "mode", str)
    if mode not in ("managed", "hooks"):
        raise PeerError("the peer's 'mode' is neither 'managed' nor 'hooks'")
    return Agreement(
        uuid_field(message, "id"),
        mode,
        wires,
        address_field(message, "tunnel_address"),
        field(message, "generation", int, 0, _LAST_GENERATION),
        field(message, "segment", str),
        field(message, "home", str),
        _marker(message),
    )


def _marker(message: Mapping[str, Any]) -> str:
    found = field(message, "marker", str)
    if not _MARKER.match(found):
        raise PeerError("the peer's 'marker' is none")
    return found


def stations(raw: object, own: bytes) -> list[tuple[bytes, int]]:
    """MAC addresses behind a guest's interface, each with the VLAN of its tag (0: none), of a list the peer sent; at most 64.

    What is none is left out: ``own``, the interface's, without a tag, and group addresses among them.
    """
    found: list[tuple[bytes, int]] = []
    for pair in raw[:MOST_STATIONS] if isinstance(raw, list) else []:
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not isinstance(pair[0], str)
            or type(pair[1]) is not int
        ):
            continue
        mac = mac_bytes(pair[0]) if _MAC.match(pair[0]) else bytes(6)
        if any(mac) and not mac[0] & 1 and (mac, pair[1]) != (own, 0) and 0 <= pair[1] <= _LAST_VLAN:
            found.append((mac, pair[1]))
    return found


def addresses(raw: object) -> list[IPv4Address | IPv6Address]:
    """The usable addresses of a list the peer sent, at most 64; what is none is left out."""
    found: list[IPv4Address | IPv6Address] = []
    for one in raw[:MOST_ADDRESSES] if isinstance(raw, list) else []:
        try:
            address = ip_address(one) if isinstance(one, str) else None
        except ValueError:
            continue
        if address is not None and not address.is_multicast and not address.is_unspecified:
            found.append(address)
    return found
