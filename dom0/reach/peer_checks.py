"""All rows of `vmnet doctor` about one peer."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from dom0.context import Context
from dom0.dataplane import tunnel
from dom0.reach import findings, probes, tunnel_probe
from dom0.reach.findings import Reach, row
from vmnet.errors import VmnetError

_CLOCK_S = 5.0
_MEMORY_PORT = 49152
_LIBVIRT_PORTS = {"tls": 16514, "tcp": 16509, "ssh": 22}


async def examine(context: Context, name: str) -> list[dict[str, Any]]:
    """Daemon, ports, MTU and libvirt of a peer. Takes as long as the slowest probe, 60 s at most."""
    peer = context.config.peers[name]
    daemon, frames, libvirt, memory = await asyncio.gather(
        _daemon(context, name),
        tunnel_probe.measure(context, name),
        _libvirt(name, peer.libvirt_uri),
        probes.tcp(peer.address, _MEMORY_PORT),
    )
    tcp = {f"TCP {_MEMORY_PORT} (VM's memory)": memory}
    if daemon["ok"]:
        tcp = {f"TCP {peer.port} (daemon)": Reach.OPEN, **tcp}
    else:
        reach = await probes.tcp(peer.address, peer.port)
        tcp = {f"TCP {peer.port} (daemon)": reach, **tcp}
        daemon["detail"] += f" [TCP {peer.port}: {reach.value}]"
    if libvirt is not None and (port := _libvirt_port(peer.libvirt_uri)) is not None:
        reached = Reach.OPEN if libvirt["ok"] else await probes.tcp(port[0], port[1])
        tcp[f"TCP {port[1]} (libvirt)"] = reached
    mtu = await asyncio.to_thread(probes.path_mtu, peer.address)
    return [
        daemon,
        findings.ports(name, tcp, frames, tunnel.UDP_PORT),
        findings.mtu(name, mtu, frames, tunnel_probe.MTU, tunnel.outer_bytes(peer.address)),
        *([libvirt] if libvirt is not None else []),
    ]


async def _daemon(context: Context, name: str) -> dict[str, Any]:
    try:
        offset = await context.peers[name].clock_offset_ns(4, _CLOCK_S)
    except VmnetError as error:
        return row(f"peer {name}", False, str(error))
    return row(f"peer {name}", True, f"answers; its clock is {offset / 1e6:+.2f} ms from ours")


async def _libvirt(name: str, uri: str) -> dict[str, Any] | None:
    """None if no URI is configured: then `vmnet migrate` sends no VM there, which is allowed."""
    if not uri:
        return None
    answer = await probes.libvirt(uri)
    hint = "" if answer.ok else findings.libvirt_hint(answer.text, uri)
    return row(f"libvirt {name}", answer.ok, f"{uri}: {answer.text}" + (f"; {hint}" if hint else ""))


def _libvirt_port(uri: str) -> tuple[str, int] | None:
    parts = urlsplit(uri)
    transport = parts.scheme.partition("+")[2]
    if parts.hostname is None or transport not in ("", *_LIBVIRT_PORTS):
        return None
    return parts.hostname, parts.port or _LIBVIRT_PORTS[transport or "tls"]
