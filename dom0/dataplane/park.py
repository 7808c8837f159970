"""The park: a tap of our own whose ring holds frames, in the kernel and in arrival order, until we read them.

It is also the way in: what we write to it comes in on the device, from where a program hands it to the guest's port as if the
guest had sent it (announcements).

Frames are read and written with the 10-byte ``virtio_net_hdr`` in front (linux/virtio_net.h), so segmentation offload and partial
checksums survive: ``read()`` here and ``PACKET_VNET_HDR`` in :mod:`dom0.dataplane.sender` speak the same format, nobody parses it.
"""

from __future__ import annotations

import fcntl
import os
import struct

from dom0.dataplane import classifier, netdev
from dom0.dataplane.classifier import Direction
from dom0.dataplane.gate_program import park_code
from dom0.dataplane.names import port_mac

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_OFFLOADS = 0x01 | 0x02 | 0x04  # TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6
_OFFLOADS_USO = _OFFLOADS | 0x20 | 0x40  # TUN_F_USO4, TUN_F_USO6 (Linux 6.2)
_FRAME_BYTES = 65536 + 64

VNET_HEADER_BYTES = 10
NO_OFFLOAD = bytes(VNET_HEADER_BYTES)


class Park:
    """A hold queue. ``packets``: how many its ring takes (the gate enforces the real bounds before).

    ``gated``: only gates put frames into it, and what else the host sends by this device ends.
    """

    def __init__(self, name: str, packets: int, mtu: int, gated: bool = True) -> None:
        self.name = name
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(
                self.fd,
                _TUNSETIFF,
                struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR),
            )
            self._accept_offloads()
            netdev.set_mac(name, port_mac())
            netdev.set_queue_length(name, packets)
            if gated:
                classifier.load_and_attach(name, Direction.EGRESS, park_code(), "vmnet_park")
            netdev.bring_up(name, mtu)
            self.ifindex = netdev.index_of(name)
        except OSError:
            os.close(self.fd)
            raise

    def _accept_offloads(self) -> None:
        try:
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, _OFFLOADS_USO)
        except OSError:
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, _OFFLOADS)

    def read(self) -> bytes | None:
        """The oldest frame, with its offload header; None when the park is empty."""
        try:
            return os.read(self.fd, _FRAME_BYTES)
        except BlockingIOError:
            return None

    def inject(self, frame: bytes) -> None:
        """``frame`` (from its Ethernet header on) comes in on this device."""
        self.send(NO_OFFLOAD + frame)

    def send(self, frame: bytes) -> None:
        """As :meth:`inject`; ``frame`` starts with its offload header."""
        os.write(self.fd, frame)

    def close(self) -> None:
        """The device goes with its last descriptor. What is injected afterwards is an OSError."""
        fd, self.fd = self.fd, -1
        os.close(fd)
