"""The probes of a peer: TCP ports, its libvirt, the route's MTU; and this host's firewall."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from dom0 import nft
from dom0.reach.findings import Reach, classify, input_policy

_TCP_S = 4.0
_LIBVIRT_S = 60.0
_IP_MTU, _IPV6_MTU = 14, 24  # ip(7), ipv6(7)
_ANY_PORT = 9


async def tcp(address: str, port: int) -> Reach:
    """Connect, and close again. Takes up to 4 s."""
    try:
        async with asyncio.timeout(_TCP_S):
            _, writer = await asyncio.open_connection(address, port)
    except OSError as error:
        return classify(error)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return Reach.OPEN


def path_mtu(address: str) -> int | None:
    """The MTU, in bytes, that the kernel has for the route to ``address``, with what it has learned of the way; None: no route."""
    six = ip_address(address).version == 6
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, _ANY_PORT))
            if six:
                return probe.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
            return probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        except OSError:
            return None


@dataclass(frozen=True)
class LibvirtAnswer:
    """``text``: the version, or the error."""

    ok: bool
    text: str


async def libvirt(uri: str) -> LibvirtAnswer:
    """Ask libvirt at ``uri`` for its version, in a process of its own that has 60 s: TLS and ssh may hang."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dom0.reach.libvirt_child", _silent(uri),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, error = await asyncio.wait_for(child.communicate(), _LIBVIRT_S)
    except TimeoutError:
        return LibvirtAnswer(False, f"no answer within {_LIBVIRT_S:g} s")
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # ssh, too
            await child.wait()
    if child.returncode:
        lines = error.decode(errors="replace").strip().splitlines()
        return LibvirtAnswer(False, " ".join(lines)[-300:])
    return LibvirtAnswer(True, output.decode(errors="replace").strip())


def _silent(uri: str) -> str:
    """ssh must not ask for a password: there is no terminal."""
    if "+ssh:" not in uri or "no_tty=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}no_tty=1"


async def input_chains() -> list[str] | None:
    """nftables' chains on this host that drop or reject by default; None if they cannot be read."""
    said = await nft.run("-j", "list", "ruleset")
    try:
        return None if said.error else input_policy(json.loads(said.text))
    except ValueError:
        return None
