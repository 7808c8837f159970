"""Tells the service manager what state the daemon is in: sd_notify(3), for `Type=notify` in the unit file."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)
_VARIABLE = "NOTIFY_SOCKET"


def ready(status: str) -> None:
    """The daemon serves requests. ``status`` is one line for `systemctl status`."""
    _notify(f"READY=1\nSTATUS={status}")


def stopping() -> None:
    """The daemon has been asked to end, and takes no new requests."""
    _notify("STOPPING=1\nSTATUS=stopping")


def _notify(state: str) -> None:
    """Does nothing if no service manager asked to be told; logs if it cannot be reached."""
    address = os.environ.get(_VARIABLE, "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.sendall(state.encode())
    except OSError as error:
        log.warning("cannot tell the service manager at %s that %r: %s", address, state, error)
