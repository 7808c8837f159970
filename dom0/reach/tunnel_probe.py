"""Sends frames to a peer through a VXLAN tunnel like a migration's, made for the test and removed after it.

It does not bind UDP 6643 itself: a migration that begins meanwhile could not make its tunnel then, but it can share the port with
another tunnel. A tunnel that a killed daemon leaves has a name of ours, and is removed when the daemon starts again.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from controller_bridge.local_frame import ETHER_TYPE, local_frame
from dom0 import stretch
from dom0.claim import address_field, field
from dom0.context import Context
from dom0.dataplane import names, tunnel
from dom0.reach.findings import Tunnel
from vmnet.errors import VmnetError

OP = "tunnel-probe"
MTU = 1500
FRAME_BYTES = MTU + 14
LISTEN_S = 2.0
_EVERY_S = 0.1
_ANSWER_S = LISTEN_S + 8.0
_NOBODY = bytes.fromhex("02766d6e6574")


async def measure(context: Context, peer: str) -> Tunnel:
    """The largest frame that arrives at ``peer``; takes up to LISTEN_S seconds if not all arrive."""
    vni = 1 + secrets.randbelow(0xFFFFFF)
    done = threading.Event()
    try:
        remote = context.config.peers[peer].address
        local = stretch.local_address(context.config.listen.tunnel_address, remote)
        sender = asyncio.create_task(asyncio.to_thread(_send, vni, local, remote, done))
        try:
            said = await context.peers[peer].request(OP, {"vni": vni, "tunnel_address": local}, _ANSWER_S)
        finally:
            done.set()
            await sender
        reason = said.get("reason")
        return Tunnel(field(said, "bytes", int, 0, 65535), reason if isinstance(reason, str) else "")
    except VmnetError as error:
        return Tunnel(reason=error.message)
    except OSError as error:
        return Tunnel(reason=_why(error))


async def answer(context: Context, peer: str, message: dict[str, Any]) -> dict[str, Any]:
    """At the peer: the largest frame that arrives. PeerError if the request is malformed, or names another host's address."""
    vni, remote = field(message, "vni", int, 1, 0xFFFFFF), address_field(message, "tunnel_address")
    stretch.check_remote(peer, context.config.peers[peer], remote)
    local = stretch.local_address(context.config.listen.tunnel_address, remote)
    try:
        return {"bytes": await asyncio.to_thread(_listen, vni, local, remote)}
    except OSError as error:
        return {"bytes": 0, "reason": _why(error)}


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"another program uses UDP {tunnel.UDP_PORT}"
    return f"no tunnel can be made: {error.strerror}"


@contextmanager
def _device(vni: int, local: str, remote: str) -> Iterator[socket.socket]:
    """A packet socket on a tunnel that ends with the block."""
    name = names.tunnel_name(vni)
    try:
        tunnel.create(name, vni, local, remote, MTU)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHER_TYPE)) as packets:
            packets.bind((name, ETHER_TYPE))
            yield packets
    except FileExistsError:  # another tunnel's
        raise
    except BaseException:
        tunnel.delete(name)
        raise
    tunnel.delete(name)


def _send(vni: int, local: str, remote: str, done: threading.Event) -> None:
    with _device(vni, local, remote) as packets:
        while True:
            for size in (0, FRAME_BYTES):
                with suppress(OSError):  # a full queue, or a frame that is too long for the way
                    packets.send(local_frame(_NOBODY, _NOBODY, b"").ljust(size, b"\0"))
            if done.wait(_EVERY_S):
                return


def _listen(vni: int, local: str, remote: str) -> int:
    largest, deadline = 0, time.monotonic() + LISTEN_S
    with _device(vni, local, remote) as packets:
        while largest < FRAME_BYTES and (left := deadline - time.monotonic()) > 0:
            packets.settimeout(left)
            with suppress(TimeoutError):
                largest = max(largest, len(packets.recv(65535)))
    return largest
