"""A network device's offloads, turned off by ethtool's ioctl (the program may be missing)."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from enum import IntEnum
from typing import Final

_SIOCETHTOOL: Final = 0x8946
_REQUEST_BYTES: Final = 40


class Offload(IntEnum):
    """Its command in linux/ethtool.h, ``ETHTOOL_S...``."""

    TX_CHECKSUMS = 0x17
    SCATTER_GATHER = 0x19
    TSO = 0x1F
    GSO = 0x24
    GRO = 0x2C


def turn_off(device: str, offload: Offload) -> None:
    """In this network namespace. OSError if the device cannot do without."""
    value = ctypes.create_string_buffer(struct.pack("II", offload, 0))
    request = struct.pack("16sP", device.encode(), ctypes.addressof(value)).ljust(_REQUEST_BYTES, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, request)
