"""Classic BPF that lets only keepalives through to user space, so that a VM's other traffic costs nothing.

Written with labels instead of counted jumps; encoding: Linux Documentation/networking/filter.rst.
"""

from __future__ import annotations

from dataclasses import dataclass

from dom0.dataplane.packet_filter import Filter
from dom0.router.bfd import MULTIHOP_PORT, SINGLE_HOP_PORT
from dom0.router.packet import MOST_FRAME_BYTES

_WORD, _HALF, _BYTE, _EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_VLAN_TAG_PRESENT = 0xFFFFF000 + 48
"""SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT: the kernel has taken the tag out of the frame, which then looks untagged."""
_UDP, _OSPF, _VRRP = 17, 89, 112
_HELLO = 1


@dataclass(frozen=True)
class _Line:
    code: int
    constant: int
    if_equal: str = ""
    otherwise: str = ""
    """Labels of where to go on; empty: the next line."""
    label: str = ""


_LINES = (
    _Line(_WORD, _VLAN_TAG_PRESENT),
    _Line(_EQUAL, 0, otherwise="drop"),
    _Line(_HALF, 12),
    _Line(_EQUAL, 0x0800, "ipv4"),
    _Line(_EQUAL, 0x86DD, "ipv6", "drop"),
    # version and header length: without options, so that all else is where it is looked for
    _Line(_BYTE, 14, label="ipv4"),
    _Line(_EQUAL, 0x45, otherwise="drop"),
    _Line(_BYTE, 23),
    _Line(_EQUAL, _VRRP, "accept"),
    _Line(_EQUAL, _OSPF, "ospf v2"),
    _Line(_EQUAL, _UDP, otherwise="drop"),
    _Line(_HALF, 36),
    _Line(_EQUAL, SINGLE_HOP_PORT, "accept"),
    _Line(_EQUAL, MULTIHOP_PORT, "accept", "drop"),
    _Line(_BYTE, 35, label="ospf v2"),
    _Line(_EQUAL, _HELLO, "accept", "drop"),
    _Line(_BYTE, 20, label="ipv6"),
    _Line(_EQUAL, _VRRP, "accept"),
    _Line(_EQUAL, _OSPF, "ospf v3"),
    _Line(_EQUAL, _UDP, otherwise="drop"),
    _Line(_HALF, 56),
    _Line(_EQUAL, SINGLE_HOP_PORT, "accept"),
    _Line(_EQUAL, MULTIHOP_PORT, "accept", "drop"),
    _Line(_BYTE, 55, label="ospf v3"),
    _Line(_EQUAL, _HELLO, "accept", "drop"),
    # one byte more than is ever used, so that a longer frame shows as one
    _Line(_RETURN, MOST_FRAME_BYTES + 1, label="accept"),
    _Line(_RETURN, 0, label="drop"),
)


def keepalive_filter() -> Filter:
    """BFD, VRRP and OSPF hellos in untagged frames, in either direction; what is shorter than looked at is dropped."""
    labels = {one.label: number for number, one in enumerate(_LINES) if one.label}

    def over(label: str, number: int) -> int:
        return labels[label] - number - 1 if label else 0

    return tuple(
        (one.code, over(one.if_equal, number), over(one.otherwise, number), one.constant)
        for number, one in enumerate(_LINES)
    )
