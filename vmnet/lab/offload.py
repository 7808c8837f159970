"""Turning transmit offloads off, so that checksums are in the packets (ethtool's ioctl; the program may be missing)."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab.enter import call

_SIOCETHTOOL = 0x8946
# linux/ethtool.h: ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SSG, ETHTOOL_STXCSUM; checksums last, the others need them
_COMMANDS = {"tso": 0x1F, "gso": 0x24, "sg": 0x19, "tx checksums": 0x17}


def turn_off(netns: Path, port: str) -> None:
    """Raises LabError when checksums cannot be turned off."""
    call(netns, lambda: _turn_off(port))


def _turn_off(port: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for name, command in _COMMANDS.items():
            value = array.array("B", struct.pack("II", command, 0))
            request = struct.pack("16sP", port.encode(), value.buffer_info()[0]).ljust(40, b"\0")
            try:
                fcntl.ioctl(control, _SIOCETHTOOL, request)
            except OSError as error:
                if name == "tx checksums":
                    raise LabError(f"cannot turn {name} off on {port}: {error}") from None
