"""Connections as one host sends them to the other; what comes is checked, for it opens a way through a filter. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final

from dom0.claim import addresses, field
from dom0.conntrack.entry import (
    LABELS_BYTES,
    SCTP,
    TCP,
    WITH_PORTS,
    Entry,
    Key,
)
from vmnet.errors import PeerError

MOST_CONNECTIONS: Final = 65_536
"""Of one VM: what is sent, and what is taken."""
MOST_A_MESSAGE: Final = 2000
_LAST_U32: Final = (1 << 32) - 1
LAST_TIMEOUT_S: Final = 7 * 24 * 3600
_LAST_TCP_STATE: Final = 9  # TCP_CONNTRACK_SYN_SENT2, linux/netfilter/nf_conntrack_tcp.h
_LAST_SCTP_STATE: Final = 8
_LAST_SCALE: Final = 14  # RFC 7323, section 2.3


def to_json(entry: Entry) -> dict[str, Any]:
    return {
        **key_to_json(entry.key),
        "status": entry.status,
        "timeout_s": min(entry.timeout_s, LAST_TIMEOUT_S),
        "mark": entry.mark,
        "labels": entry.labels.hex(),
        "state": list(entry.state),
    }


def key_to_json(key: Key) -> dict[str, Any]:
    return {
        "zone": key.zone,
        "protocol": key.protocol,
        "source": str(ip_address(key.source)),
        "destination": str(ip_address(key.destination)),
        "detail": key.detail.hex(),
    }


def guest_addresses(message: Mapping[str, Any]) -> frozenset[bytes]:
    """The VM's, of a peer's message; packed. What is none is left out."""
    return frozenset(one.packed for one in addresses(message.get("addresses")))


def parse_entries(raw: object, guest: frozenset[bytes]) -> list[Entry]:
    """PeerError unless each is a connection of an address of ``guest``."""
    return [_entry(one, guest) for one in _objects(raw)]


def parse_keys(raw: object, guest: frozenset[bytes]) -> list[Key]:
    """As :func:`parse_entries`."""
    return [_key(one, guest) for one in _objects(raw)]


def _objects(raw: object) -> Sequence[Mapping[str, Any]]:
    if (
        not isinstance(raw, list)
        or len(raw) > MOST_A_MESSAGE
        or not all(isinstance(one, dict) for one in raw)
    ):
        raise PeerError(f"the peer's connections are no list of at most {MOST_A_MESSAGE}")
    return raw


def _key(raw: Mapping[str, Any], guest: frozenset[bytes]) -> Key:
    protocol = field(raw, "protocol", int, 0, 255)
    key = Key(
        field(raw, "zone", int, 0, 0xFFFF),
        protocol,
        _address(raw, "source"),
        _address(raw, "destination"),
        _bytes(raw, "detail", (4,) if protocol in WITH_PORTS else (0, 4)),
    )
    if len(key.source) != len(key.destination) or not key.has(guest):
        raise PeerError("a connection of the peer's is none of the VM's")
    if key.answered() is None:
        raise PeerError("a connection of the peer's has an ICMP type without an answer")
    return key


def _entry(raw: Mapping[str, Any], guest: frozenset[bytes]) -> Entry:
    key = _key(raw, guest)
    return Entry(
        key,
        field(raw, "status", int, 0, _LAST_U32),
        field(raw, "timeout_s", int, 1, LAST_TIMEOUT_S),
        field(raw, "mark", int, 0, _LAST_U32),
        _bytes(raw, "labels", (0, LABELS_BYTES)),
        _state(raw.get("state"), key.protocol),
    )


def _address(raw: Mapping[str, Any], name: str) -> bytes:
    found = addresses([raw.get(name)])
    if not found or found[0].is_loopback:
        raise PeerError(f"the peer's '{name}' is no address of a connection")
    return found[0].packed


def _bytes(raw: Mapping[str, Any], name: str, lengths: tuple[int, ...]) -> bytes:
    try:
        value = bytes.fromhex(field(raw, name, str))
    except ValueError:
        raise PeerError(f"the peer's '{name}' is not hexadecimal") from None
    if len(value) not in lengths:
        raise PeerError(f"the peer's '{name}' has {len(value)} bytes")
    return value


def _state(raw: object, protocol: int) -> tuple[int, ...]:
    """By protocol, as :class:`Entry` has it."""
    bounds = {
        TCP: (_LAST_TCP_STATE, _LAST_SCALE, _LAST_SCALE, 255, 255),
        SCTP: (_LAST_SCTP_STATE, _LAST_U32, _LAST_U32),
    }.get(protocol, ())
    if raw == []:
        return ()
    if (
        not isinstance(raw, list)
        or len(raw) != len(bounds)
        or not all(type(one) is int and 0 <= one <= last for one, last in zip(raw, bounds, strict=True))
    ):
        raise PeerError("the peer's 'state' is none of a connection of its protocol")
    return tuple(raw)
