"""Turning transmit offloads off, so that checksums are in the packets."""

from __future__ import annotations

import contextlib
from pathlib import Path

from vmnet import ethtool
from vmnet.errors import LabError
from vmnet.ethtool import Offload
from vmnet.lab.enter import call


def turn_off(netns: Path, port: str) -> None:
    """Raises LabError when checksums cannot be turned off."""
    call(netns, lambda: _turn_off(port))


def _turn_off(port: str) -> None:
    for one in (Offload.TSO, Offload.GSO, Offload.SCATTER_GATHER):  # before checksums: they need them
        with contextlib.suppress(OSError):
            ethtool.turn_off(port, one)
    try:
        ethtool.turn_off(port, Offload.TX_CHECKSUMS)
    except OSError as error:
        raise LabError(f"cannot turn tx checksums off on {port}: {error}") from None
