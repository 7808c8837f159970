"""An entry of a host's connection tracking table, and ctnetlink's messages about it (linux/netfilter/nfnetlink_conntrack.h). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from dom0.dataplane.rtnetlink import nested
from dom0.fib.message import (
    CREATE,
    DUMP,
    EXCLUSIVE,
    HEADER,
    INET,
    INET6,
    REQUEST,
    WIDTH_BYTES,
    MalformedError,
    attribute,
    attributes,
    body_of,
    family_of,
    message,
    number,
)

NEW, GET, DELETE = 0x100, 0x101, 0x102
"""NFNL_SUBSYS_CTNETLINK with IPCTNL_MSG_CT_NEW, _GET and _DELETE."""
_NFGENMSG = struct.Struct("=BBH")
_BE16, _BE32 = struct.Struct("!H"), struct.Struct("!I")

_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _TIMEOUT, _MARK = 1, 2, 3, 4, 7, 8
_ZONE, _LABELS, _LABELS_MASK, _FILTER = 18, 22, 23, 25
_TUPLE_IP, _TUPLE_PROTO, _TUPLE_ZONE = 1, 2, 3
_SOURCE = {INET: 1, INET6: 3}
_DESTINATION = {INET: 2, INET6: 4}
_PROTOCOL, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_ICMP_ID_TYPE_CODE = {1: (4, 5, 6), 58: (7, 8, 9)}
_FILTER_ORIG_FLAGS, _BY_SOURCE, _BY_DESTINATION = 1, 1, 2

TCP, ICMP, ICMPV6, SCTP = 6, 1, 58, 132
WITH_PORTS: Final = frozenset((TCP, 17, 33, SCTP, 136))
"""UDP, DCCP and UDP-Lite among them."""
_ANSWERS = {
    ICMP: {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17},
    ICMPV6: {128: 129, 129: 128, 139: 140, 140: 139},
}
_SEEN_REPLY, _ASSURED, _CONFIRMED = 0x2, 0x4, 0x8
CARRIED_STATUS: Final = _SEEN_REPLY | _ASSURED
"""Of the flags ``IPS_*``, those that are of the connection and not of this host."""
LIBERAL: Final = 0x8
"""IP_CT_TCP_FLAG_BE_LIBERAL: the windows are not told by ctnetlink, so the new host's kernel cannot check them."""
CARRIED_TCP_FLAGS: Final = 0x7
"""Window scaling, selective acknowledgements, which side closes first."""
_TCP_INFO, _SCTP_INFO = 1, 3
_CONNECTION: Final = "a connection"
LABELS_BYTES: Final = 16

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Key:
    """Which connection, as its first packet was: ``detail`` is two ports, or ICMP's id, type and code; empty for other protocols.

    ``source`` and ``destination``: packed addresses.
    """

    zone: int
    protocol: int
    source: bytes
    destination: bytes
    detail: bytes

    def answered(self) -> Key | None:
        """As the answers to it are, if nobody translates them; None for an ICMP type that has no answer."""
        detail = self.detail[2:] + self.detail[:2]
        if self.protocol in _ANSWERS and self.detail:
            answer = _ANSWERS[self.protocol].get(self.detail[2])
            if answer is None:
                return None
            detail = self.detail[:2] + bytes((answer, self.detail[3]))
        return Key(self.zone, self.protocol, self.destination, self.source, detail)

    def has(self, addresses: frozenset[bytes]) -> bool:
        return self.source in addresses or self.destination in addresses


@dataclass(frozen=True, slots=True)
class Entry:
    """``state``: of TCP its state, both sides' window scale and both sides' flags; of SCTP its state and both sides' tag; else empty.

    ``labels``: 16 bytes, or none. ``translated``: the host changes its addresses (NAT), so it cannot go on at another one.
    """

    key: Key
    status: int
    timeout_s: int
    mark: int = 0
    labels: bytes = b""
    state: tuple[int, ...] = ()
    translated: bool = False


def parse(data: bytes) -> Entry:
    """Of a message IPCTNL_MSG_CT_NEW. Raises MalformedError."""
    body_of(data, _NFGENMSG.size)
    values = dict(attributes(data, HEADER.size + _NFGENMSG.size))
    zone = number(values, _ZONE, _BE16, _CONNECTION)
    key, marked = _key(values.get(_TUPLE_ORIG, b""), zone)
    answer, answer_marked = _key(values.get(_TUPLE_REPLY, b""), zone)
    return Entry(
        key,
        number(values, _STATUS, _BE32, _CONNECTION) & CARRIED_STATUS,
        number(values, _TIMEOUT, _BE32, _CONNECTION),
        number(values, _MARK, _BE32, _CONNECTION),
        values.get(_LABELS, b""),
        _state(key.protocol, values.get(_PROTOINFO, b"")),
        translated=answer != key.answered() or marked or answer_marked,
    )


def _key(data: bytes, zone: int) -> tuple[Key, bool]:
    """And whether the tuple has a zone of its own: what is in two zones is as good as translated."""
    parts = dict(attributes(data, 0))
    where = dict(attributes(parts.get(_TUPLE_IP, b""), 0))
    what = dict(attributes(parts.get(_TUPLE_PROTO, b""), 0))
    family = INET if _SOURCE[INET] in where else INET6
    source, destination = where.get(_SOURCE[family], b""), where.get(_DESTINATION[family], b"")
    protocol = what.get(_PROTOCOL, b"")
    if len(source) != WIDTH_BYTES[family] or len(destination) != len(source) or len(protocol) != 1:
        raise MalformedError("a connection without addresses or protocol")
    return Key(zone, protocol[0], source, destination, _detail(protocol[0], what)), _TUPLE_ZONE in parts


def _detail(protocol: int, what: dict[int, bytes]) -> bytes:
    kinds = _ICMP_ID_TYPE_CODE.get(protocol, (_SOURCE_PORT, _DESTINATION_PORT))
    detail = b"".join(what.get(kind, b"") for kind in kinds)
    if len(detail) not in (0, 4):
        raise MalformedError(f"a connection of protocol {protocol} with ports of {len(detail)} bytes")
    return detail


def _state(protocol: int, data: bytes) -> tuple[int, ...]:
    information = dict(attributes(data, 0))
    if protocol == TCP and _TCP_INFO in information:
        tcp = dict(attributes(information[_TCP_INFO], 0))
        return tuple(tcp.get(kind, b"\0")[0] if tcp.get(kind) else 0 for kind in (1, 2, 3, 4, 5))
    if protocol == SCTP and _SCTP_INFO in information:
        sctp = dict(attributes(information[_SCTP_INFO], 0))
        state = sctp.get(1) or b"\0"
        return (state[0], number(sctp, 2, _BE32, _CONNECTION), number(sctp, 3, _BE32, _CONNECTION))
    return ()


def create(entry: Entry) -> bytes:
    """The request to add it; the kernel answers EEXIST if it has one of this key. ValueError if its answers have no key."""
    answer = entry.key.answered()
    if answer is None:
        raise ValueError("an ICMP type without an answer")
    body = [
        _tuple(_TUPLE_ORIG, entry.key),
        _tuple(_TUPLE_REPLY, answer),
        attribute(_STATUS, _BE32.pack(entry.status & CARRIED_STATUS | _CONFIRMED)),
        attribute(_TIMEOUT, _BE32.pack(entry.timeout_s)),
        _zone(entry.key),
        _information(entry),
    ]
    if entry.mark:
        body.append(attribute(_MARK, _BE32.pack(entry.mark)))
    if any(entry.labels):
        body += [attribute(_LABELS, entry.labels), attribute(_LABELS_MASK, entry.labels)]
    return _request(NEW, CREATE | EXCLUSIVE, family_of(entry.key.source), body)


def delete(key: Key) -> bytes:
    return _request(DELETE, 0, family_of(key.source), [_tuple(_TUPLE_ORIG, key), _zone(key)])


def list_all(family: int) -> bytes:
    return _request(GET, DUMP, family, [])


def list_about(address: bytes, as_source: bool) -> bytes:
    """Those whose first packet came from ``address``, or else went to it. Linux 5.8 filters by itself."""
    family = family_of(address)
    flag, kind = (_BY_SOURCE, _SOURCE[family]) if as_source else (_BY_DESTINATION, _DESTINATION[family])
    wanted = nested(_FILTER, attribute(_FILTER_ORIG_FLAGS, struct.pack("=I", flag)))
    return _request(
        GET, DUMP, family, [wanted, nested(_TUPLE_ORIG, nested(_TUPLE_IP, attribute(kind, address)))]
    )


def _request(kind: int, flags: int, family: int, body: list[bytes]) -> bytes:
    return message(kind, REQUEST | flags, _NFGENMSG.pack(family, 0, 0) + b"".join(body))


def _tuple(kind: int, key: Key) -> bytes:
    family = family_of(key.source)
    where = nested(
        _TUPLE_IP, attribute(_SOURCE[family], key.source), attribute(_DESTINATION[family], key.destination)
    )
    what = [attribute(_PROTOCOL, bytes((key.protocol,)))]
    if key.detail and key.protocol in _ICMP_ID_TYPE_CODE:
        parts = (key.detail[:2], key.detail[2:3], key.detail[3:])
        what += [attribute(*one) for one in zip(_ICMP_ID_TYPE_CODE[key.protocol], parts, strict=True)]
    elif key.detail:
        what += [attribute(_SOURCE_PORT, key.detail[:2]), attribute(_DESTINATION_PORT, key.detail[2:])]
    return nested(kind, where, nested(_TUPLE_PROTO, *what))


def _zone(key: Key) -> bytes:
    return attribute(_ZONE, _BE16.pack(key.zone)) if key.zone else b""


def _information(entry: Entry) -> bytes:
    if entry.key.protocol == TCP and len(entry.state) == 5:
        state, *scales, first, second = entry.state
        flags = [value & CARRIED_TCP_FLAGS | LIBERAL for value in (first, second)]
        values = [bytes((state,)), *(bytes((one,)) for one in scales), *(bytes((one, one)) for one in flags)]
        return nested(_PROTOINFO, nested(_TCP_INFO, *(attribute(*one) for one in enumerate(values, 1))))
    if entry.key.protocol == SCTP and len(entry.state) == 3:
        state, first, second = entry.state
        values = [bytes((state,)), _BE32.pack(first), _BE32.pack(second)]
        return nested(_PROTOINFO, nested(_SCTP_INFO, *(attribute(*one) for one in enumerate(values, 1))))
    return b""
