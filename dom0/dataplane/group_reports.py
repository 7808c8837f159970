"""A guest's multicast memberships, as it reports them: IGMP (RFC 3376, and 2236) and MLD (RFC 3810, and 2710).

Switches that snoop send a group's packets to the ports where they have heard its reports. A guest does not know that it has moved, and
reports again when it is asked, up to two minutes later. So its own reports are sent again at its new port.
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address
from typing import Final

from dom0.dataplane.announce import link_local
from dom0.dataplane.listener import Listener
from dom0.dataplane.packet_filter import JEQ, LD, LDB, LDH, OUTGOING, PACKET_TYPE, RET, TAG_PRESENT, Filter
from vmnet import icmpv6
from vmnet.internet_checksum import checksum

MOST_REPORTS: Final = 64
"""An interface: each can report many groups."""
LONGEST_REPORT_BYTES: Final = 1514
_IPV4, _IPV6 = 0x0800, 0x86DD
_IGMP, _ICMPV6, _HOP_BY_HOP = 2, 58, 0
_IGMP_REPORTS = frozenset((0x12, 0x16, 0x17, 0x22))
"""Of IGMPv1, IGMPv2, leave, IGMPv3."""
_MLD_REPORTS = frozenset((131, 132, 143))
"""Of MLDv1, done, MLDv2."""
_ALL_SYSTEMS, _ALL_NODES = bytes.fromhex("e0000001"), IPv6Address("ff02::1")
_ANSWER_WITHIN_MS: Final = 100


def report_filter(mac: bytes) -> Filter:
    """Untagged frames from ``mac`` that are IGMP, or ICMPv6 behind a hop-by-hop header, as they come from the guest. Pure."""
    high, low = struct.unpack("!IH", mac)
    return (
        (LDH, 0, 0, PACKET_TYPE),
        (JEQ, 14, 0, OUTGOING),
        (LD, 0, 0, TAG_PRESENT),
        (JEQ, 0, 12, 0),
        (LD, 0, 0, 6),
        (JEQ, 0, 10, high),
        (LDH, 0, 0, 10),
        (JEQ, 0, 8, low),
        (LDH, 0, 0, 12),
        (JEQ, 0, 2, _IPV4),
        (LDB, 0, 0, 23),
        (JEQ, 3, 4, _IGMP),
        (JEQ, 0, 3, _IPV6),
        (LDB, 0, 0, 20),
        (JEQ, 0, 1, _HOP_BY_HOP),
        (RET, 0, 0, LONGEST_REPORT_BYTES + 1),
        (RET, 0, 0, 0),
    )


def is_report(frame: bytes, mac: bytes) -> bool:
    """Whether it is a report of ``mac`` and nothing else: a peer sends them, and they are sent into this host's LAN. Pure."""
    if len(frame) > LONGEST_REPORT_BYTES or len(frame) < 42 or frame[6:12] != mac or not frame[0] & 1:
        return False
    ethertype = struct.unpack_from("!H", frame, 12)[0]
    if ethertype == _IPV4:
        header_bytes = (frame[14] & 0xF) * 4
        kind = 14 + header_bytes
        multicast = frame[30] >> 4 == 0xE
        return (
            frame[14] >> 4 == 4
            and header_bytes >= 20
            and len(frame) >= kind + 8
            and frame[23] == _IGMP
            and frame[kind] in _IGMP_REPORTS
            and multicast
        )
    return (
        ethertype == _IPV6
        and len(frame) >= 14 + 40 + 8 + 8
        and frame[14] >> 4 == 6
        and frame[20] == _HOP_BY_HOP
        and frame[38] == 0xFF
        and frame[54] == _ICMPV6
        and frame[55] == 0
        and frame[62] in _MLD_REPORTS
    )


def general_queries(asker: bytes) -> tuple[bytes, bytes]:
    """The questions for all memberships, of IGMPv3 and MLDv2, as a switch that snoops asks them (RFC 4541, section 2.1.1). Pure.

    That of IGMP comes from 0.0.0.0, and so takes part in no election of a querier.
    """
    return _igmp_query(asker), _mld_query(asker)


def _igmp_query(asker: bytes) -> bytes:
    body = struct.pack("!BBH4sBBH", 0x11, _ANSWER_WITHIN_MS // 100, 0, bytes(4), 2, 125, 0)
    body = _with_checksum(body, checksum(body))
    router_alert = bytes((0x94, 4, 0, 0))
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x46, 0xC0, 24 + len(body), 0, 0, 1, _IGMP, 0, bytes(4), _ALL_SYSTEMS
    )
    header += router_alert
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return _frame(bytes.fromhex("01005e000001"), asker, _IPV4, header + body)


def _mld_query(asker: bytes) -> bytes:
    source = link_local(asker)
    body = struct.pack("!BBHHH16sBBH", 130, 0, 0, _ANSWER_WITHIN_MS, 0, bytes(16), 2, 125, 0)
    body = _with_checksum(body, icmpv6.summed(source, _ALL_NODES, body))
    router_alert = bytes((_ICMPV6, 0, 5, 2, 0, 0, 1, 0))
    header = struct.pack("!IHBB", 6 << 28, len(router_alert) + len(body), _HOP_BY_HOP, 1)
    packet = header + source.packed + _ALL_NODES.packed + router_alert + body
    return _frame(bytes.fromhex("333300000001"), asker, _IPV6, packet)


def _with_checksum(body: bytes, value: int) -> bytes:
    return body[:2] + struct.pack("!H", value) + body[4:]


def _frame(destination: bytes, source: bytes, ethertype: int, packet: bytes) -> bytes:
    return (destination + source + struct.pack("!H", ethertype) + packet).ljust(60, b"\0")


class ReportListener:
    """On a guest's tap; call :meth:`turn` now and then. OSError if the tap is gone."""

    def __init__(self, tap: str, mac: bytes) -> None:
        self._mac = mac
        self._heard: dict[bytes, None] = {}
        self._listener = Listener(tap, report_filter(mac))

    def turn(self) -> list[bytes]:
        """The last 64 by now that differ, in the order in which the guest has sent them. Does not block."""
        for frame in self._listener.drain():
            if is_report(frame, self._mac):
                self._heard.pop(frame, None)
                self._heard[frame] = None
        for oldest in list(self._heard)[:-MOST_REPORTS]:
            del self._heard[oldest]
        return list(self._heard)

    def close(self) -> None:
        self._listener.close()
