"""Matches as OXM fields (section 7.2.3): made once, encoded once, compared as values."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NamedTuple

from vmnet.errors import PeerError

_BASIC: Final = 0x8000
_OXM = struct.Struct("!HBB")
_TYPE_OXM: Final = 1


class Field(IntEnum):
    """oxm_ofb_match_fields, those that vmnet uses or meets."""

    IN_PORT = 0
    METADATA = 2
    ETH_DST = 3
    ETH_SRC = 4
    ETH_TYPE = 5
    VLAN_VID = 6
    VLAN_PCP = 7
    IP_DSCP = 8
    IP_PROTO = 10
    IPV4_SRC = 11
    IPV4_DST = 12
    TCP_SRC = 13
    TCP_DST = 14
    UDP_SRC = 15
    UDP_DST = 16
    ICMPV4_TYPE = 19
    ARP_OP = 21
    ARP_SPA = 22
    ARP_TPA = 23
    ARP_SHA = 24
    IPV6_SRC = 26
    IPV6_DST = 27
    ICMPV6_TYPE = 29
    ND_TARGET = 31
    ND_SLL = 32
    ND_TLL = 33
    TUNNEL_ID = 38


SIZES: Final[Mapping[int, int]] = {
    Field.IN_PORT: 4,
    Field.METADATA: 8,
    Field.ETH_DST: 6,
    Field.ETH_SRC: 6,
    Field.ETH_TYPE: 2,
    Field.VLAN_VID: 2,
    Field.VLAN_PCP: 1,
    Field.IP_DSCP: 1,
    Field.IP_PROTO: 1,
    Field.IPV4_SRC: 4,
    Field.IPV4_DST: 4,
    Field.TCP_SRC: 2,
    Field.TCP_DST: 2,
    Field.UDP_SRC: 2,
    Field.UDP_DST: 2,
    Field.ICMPV4_TYPE: 1,
    Field.ARP_OP: 2,
    Field.ARP_SPA: 4,
    Field.ARP_TPA: 4,
    Field.ARP_SHA: 6,
    Field.IPV6_SRC: 16,
    Field.IPV6_DST: 16,
    Field.ICMPV6_TYPE: 1,
    Field.ND_TARGET: 16,
    Field.ND_SLL: 6,
    Field.ND_TLL: 6,
    Field.TUNNEL_ID: 8,
}
"""Bytes of a field's value."""

Value = int | bytes | IPv4Address | IPv6Address | IPv4Network | IPv6Network


class Match(NamedTuple):
    """``oxm``: the fields' own encoding, in ascending order of field, without header and padding; empty matches everything."""

    oxm: bytes = b""

    @staticmethod
    def of(**fields: Value) -> Match:
        """``Match.of(eth_type=0x0800, ipv4_dst=IPv4Address("192.0.2.1"))``; networks become masks.

        ValueError for a field that does not exist or a value that does not fit.
        """
        named = sorted((_field(name), value) for name, value in fields.items())
        return Match(b"".join(_encode(field, value) for field, value in named))

    def packed(self) -> bytes:
        """struct ofp_match, padded."""
        length = 4 + len(self.oxm)
        return struct.pack("!HH", _TYPE_OXM, length) + self.oxm + bytes(-length % 8)

    def fields(self) -> dict[int, tuple[bytes, bytes | None]]:
        """field -> (value, mask or None); fields of other classes are left out. PeerError if malformed."""
        return {field: (value, mask) for field, value, mask in _decode(self.oxm)}

    def at_port(self, port: int) -> Match:
        """The same, of packets that come by ``port``."""
        own = _oxm(Field.IN_PORT, port.to_bytes(4, "big"), 4)
        if self.oxm[:4] == own[:4]:
            return Match(own + self.oxm[8:])
        if Field.IN_PORT in self.fields():
            raise ValueError("a match whose fields are not in order")
        return Match(own + self.oxm)

    def without_port(self) -> Match:
        """The same, of packets that come by any port."""
        own = _oxm(Field.IN_PORT, bytes(4), 4)
        return Match(self.oxm[8:]) if self.oxm[:4] == own[:4] else self

    def covers(self, wanted: Match) -> bool:
        """Whether every field of ``wanted`` is said here, too, with the same value and mask."""
        own = self.fields() if wanted.oxm else {}
        return all(own.get(field) == value for field, value in wanted.fields().items())

    def get(self, field: Field) -> bytes | None:
        """An unmasked field's value."""
        value, mask = self.fields().get(field, (None, None))
        return value if mask is None else None


def _field(name: str) -> Field:
    try:
        return Field[name.upper()]
    except KeyError:
        raise ValueError(f"no OpenFlow field '{name}'") from None


def _encode(field: Field, value: Value) -> bytes:
    size = SIZES[field]
    if isinstance(value, IPv4Network | IPv6Network):
        address, mask = value.network_address.packed, value.netmask.packed
        if value.prefixlen == value.max_prefixlen:
            return _oxm(field, address, size)
        return _OXM.pack(_BASIC, field << 1 | 1, 2 * size) + _fitting(address, size) + mask
    if isinstance(value, int):
        return _oxm(field, value.to_bytes(size, "big"), size)
    return _oxm(field, value if isinstance(value, bytes) else value.packed, size)


def _oxm(field: Field, value: bytes, size: int) -> bytes:
    return _OXM.pack(_BASIC, field << 1, size) + _fitting(value, size)


def _fitting(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ValueError(f"a value of {len(value)} bytes where {size} belong")
    return value


def _decode(oxm: bytes) -> Iterator[tuple[int, bytes, bytes | None]]:
    at = 0
    while at < len(oxm):
        if len(oxm) - at < 4:
            raise PeerError("an OpenFlow match ends within a field's header")
        space, field, length = _OXM.unpack_from(oxm, at)
        end = at + 4 + length
        if end > len(oxm):
            raise PeerError("an OpenFlow match ends within a field")
        body = oxm[at + 4 : end]
        at = end
        if space != _BASIC:
            continue
        if field & 1:
            yield field >> 1, body[: length // 2], body[length // 2 :]
        else:
            yield field >> 1, body, None


def unpack_match(data: bytes, at: int) -> tuple[Match, int]:
    """The match at ``at`` and where what follows it begins. PeerError if it is malformed."""
    if len(data) - at < 4:
        raise PeerError("an OpenFlow message ends before its match")
    kind, length = struct.unpack_from("!HH", data, at)
    if kind != _TYPE_OXM or length < 4 or at + length > len(data):
        raise PeerError("an OpenFlow match that makes no sense")
    return Match(data[at + 4 : at + length]), at + length + -length % 8
