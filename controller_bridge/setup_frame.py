"""Frames that go by a new way to a VM before its senders' packets do. Pure.

A kernel's Open vSwitch on the new way has the entry in its table, and no flow in its datapath. The first packets of the VM's senders
would go to ovs-vswitchd, and be overtaken by those behind them. So before a switch is changed, it sends frames like theirs over its
new link. The switches behind that link have been changed already, and set up their flows. No station takes the frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from vmnet.undeliverable import frame_like

SOURCE: Final = bytes.fromhex("02766d677703")
"""The MAC address that they come from: locally administered, and no station's."""
MOST: Final = 64
"""Of one move."""
HEADER_BYTES: Final = 96
"""Of a sender's header, at most: Ethernet with a VLAN tag, the IPv6 header or the longest IPv4 one, and ports."""


def setup_frames(headers: Iterable[bytes]) -> list[bytes]:
    """One like each header (from its Ethernet header on), without a tag; at most 64. What is no IP packet's header has none."""
    frames = (frame_like(header, header[:6], SOURCE, 0) for header in headers)
    return list(dict.fromkeys(one for one in frames if one is not None))[:MOST]
