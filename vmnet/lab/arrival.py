"""What tells switches that a client has come: the frame that access points send for a station that has associated.

hostapd's "layer 2 update frame" (IEEE 802.11F): an 802.2 XID response from the station's address to everybody. Switches that learn
do so from it, a controller gets to see it, and stations answer nothing.
"""

from __future__ import annotations

import socket

from vmnet.errors import LabError
from vmnet.lab.node import Node

_BROADCAST = b"\xff" * 6
_XID_RESPONSE = bytes(
    (0, 1, 0xAF, 0x81, 1, 0)
)  # null DSAP; null SSAP, response; XID, final bit clear; classes of LLC; window


def frame(mac: str) -> bytes:
    """``mac`` as text. Ends where the smallest Ethernet frame does."""
    length = len(_XID_RESPONSE).to_bytes(2, "big")
    return (_BROADCAST + bytes.fromhex(mac.replace(":", "")) + length + _XID_RESPONSE).ljust(60, b"\0")


def announce(node: Node, port: str, mac: str) -> None:
    """Send it from a node's interface. Raises LabError when it cannot be sent."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packets:
            packets.bind((port, 0))
            packets.send(frame(mac))

    try:
        node.call(send)
    except OSError as error:
        raise LabError(f"cannot send from {node.name}:{port}: {error}") from None
