"""Who has sent a guest frames lately, and a frame with the same headers for the switch of the host that it comes to. Pure.

The datapath of an Open vSwitch in the kernel has no flow for a sender whose frames it has not seen. The first frame goes to
ovs-vswitchd. The next ones pass as soon as the flow is there, and overtake it. A *setup frame* sets the flow up before the guest runs.
"""

from __future__ import annotations

import struct
from typing import Final

from controller_bridge.local_frame import TYPE
from controller_bridge.setup_frame import HEADER_BYTES, MOST
from dom0.dataplane.announce import nobody
from dom0.dataplane.flow_key import ETHERNET_BYTES, FRAGMENT, IPV4, IPV4_BYTES, IPV6, IPV6_BYTES, TAG, type_at

MOST_SENDERS: Final = MOST
_MINIMUM_FRAME_BYTES: Final = 60


def _kind(header: bytes) -> bytes | None:
    """What a switch's flow may tell apart: source, tag, type, protocol. None for a fragment, and for what is too short."""
    at = type_at(header)
    (ether_type,) = struct.unpack_from("!H", header, at)
    body = at + 2
    if ether_type == IPV4:
        if len(header) < body + IPV4_BYTES or struct.unpack_from("!H", header, body + 6)[0] & FRAGMENT:
            return None
        return header[6:body] + header[body + 9 : body + 10]
    if ether_type == IPV6:
        return header[6:body] + header[body + 6 : body + 7] if len(header) >= body + IPV6_BYTES else None
    return header[6:body]


def is_sender(header: bytes, guest: bytes) -> bool:
    """Whether ``header`` is that of a frame of another station to the guest's MAC address ``guest`` (6 bytes each)."""
    if len(header) < ETHERNET_BYTES + 4 or header[:6] != guest:
        return False
    source = header[6:12]
    return not source[0] & 1 and source not in (guest, bytes(6))


class Senders:
    """The last header (at most 96 bytes) of each sender, VLAN, type and protocol; the newest 64 of them."""

    def __init__(self, guest: bytes) -> None:
        self._guest = guest
        self._headers: dict[bytes, bytes] = {}

    def note(self, frame: bytes) -> None:
        """``frame``, from its Ethernet header on, goes to the guest's port. Those that are not for its address alone do not count."""
        header = frame[:HEADER_BYTES]
        kind = _kind(header) if is_sender(header, self._guest) else None
        if kind is None:
            return
        self._headers.pop(kind, None)
        self._headers[kind] = header
        if len(self._headers) > MOST_SENDERS:
            del self._headers[next(iter(self._headers))]

    @property
    def headers(self) -> list[bytes]:
        return list(self._headers.values())


def vlan_of(header: bytes) -> int:
    """The VLAN in the frame's own tag; 0: none."""
    if type_at(header) == 12:
        return 0
    return int(struct.unpack_from("!H", header, 14)[0]) & 0xFFF


def scout(guest: bytes, tag: int) -> bytes:
    """A setup frame from a random address, locally administered, for which no switch has a flow; in VLAN ``tag`` (0: none)."""
    return setup_frame(guest + nobody() + TYPE + bytes(ETHERNET_BYTES), tag)


def setup_frame(header: bytes, tag: int) -> bytes:
    """A frame with the addresses, types and ports of ``header``, no payload, and a tag of VLAN ``tag`` (0: none).

    The lengths in it are right, as a switch looks at them; no checksum is. ``header`` is one of which :func:`is_sender` is true.
    """
    at = type_at(header)
    body = bytearray(header[at:])
    body += bytes(max(0, _MINIMUM_FRAME_BYTES - 12 - len(body)))
    (ether_type,) = struct.unpack_from("!H", body)
    if ether_type == IPV4:
        struct.pack_into("!H", body, 4, len(body) - 2)
    elif ether_type == IPV6:
        struct.pack_into("!H", body, 6, max(0, len(body) - 2 - IPV6_BYTES))
    return header[:12] + (struct.pack("!HH", TAG, tag) if tag else b"") + bytes(body)
