"""``vmnet doctor``: is this host fit to let VMs go and come? Each check: what, whether, and what to do."""

from __future__ import annotations

import asyncio
import platform
from pathlib import Path
from typing import Any

from dom0 import certificate
from dom0.context import Context
from dom0.dataplane import kernel_probe, tunnel
from dom0.reach import findings, peer_checks, probes
from dom0.reach.findings import row
from dom0.tunnel_filter import Found
from hooks import install as hooks_install
from hooks.install import HookStatus
from vmnet.errors import VmnetError

_ETC_LIBVIRT = Path("/etc/libvirt")


async def examine(context: Context) -> list[dict[str, Any]]:
    """A list of {"check", "ok", "tested", "detail"}; the detail of a failed check says what to do."""
    own, chains, *peers = await asyncio.gather(
        _host(context),
        probes.input_chains(),
        *(peer_checks.examine(context, name) for name in context.config.peers),
    )
    return [*own, findings.firewall(chains), *(row for rows in peers for row in rows)]


async def _host(context: Context) -> list[dict[str, Any]]:
    return [
        await _versions(context),
        *await _kernel(),
        _hold(context),
        await _tunnel_filter(context),
        await asyncio.to_thread(_certificate, context),
        await asyncio.to_thread(_hooks, context),
        await _libvirt(context),
        await _store(context),
    ]


async def _kernel() -> list[dict[str, Any]]:
    found = await asyncio.to_thread(kernel_probe.examine)
    return [row(one.what, one.works or not one.needed, one.detail) for one in found]


def _hold(context: Context) -> dict[str, Any]:
    limits = context.limits
    detail = f"{limits.queue_packets} packets an interface"
    if limits.short:
        detail += f": the kernel makes no longer queue (hold.max_packets is {limits.wanted_packets})"
    return row("queue length", True, detail)


async def _tunnel_filter(context: Context) -> dict[str, Any]:
    if not context.tunnel_filter.wanted:
        return row("tunnel filter", True, "none: there are no peers, or listen.tunnel_filter is off")
    return tunnel_filter_row(await context.tunnel_filter.look())


def tunnel_filter_row(seen: Found) -> dict[str, Any]:
    """Pure."""
    what = f"UDP {tunnel.UDP_PORT} from hosts that are no peers"
    if seen.reason:
        return row(
            "tunnel filter", False, f"{what} is not dropped: {seen.reason}; restart vmnet-dom0d after that"
        )
    return row("tunnel filter", True, f"{what} is dropped: {seen.dropped_packets} packets so far")


def _certificate(context: Context) -> dict[str, Any]:
    tls = context.config.tls
    if tls.plain:
        return row("certificate", True, "none: peers are believed by their addresses (tls.plain)")
    against = certificate.problems(tls)
    return row(
        "certificate",
        not against,
        "; ".join(against) or f"{tls.certificate} is good for {certificate.SOON_DAYS} days or more",
    )


def _hooks(context: Context) -> dict[str, Any]:
    """Also whether the libvirtd that runs has seen them: it looks when it starts and when it is reloaded."""
    driver = "libxl" if context.config.libvirt.uri.startswith("xen") else "qemu"
    try:
        (status,) = hooks_install.status(_ETC_LIBVIRT, [driver])
    except VmnetError as error:
        return row("hooks", False, str(error))
    return hooks_row(status)


def hooks_row(status: HookStatus) -> dict[str, Any]:
    """Pure."""
    if status.state in ("absent", "foreign"):
        return row("hooks", False, f"{status.path} is {status.state}: run `vmnet hooks install`")
    if status.reload_needed:
        return row(
            "hooks",
            False,
            f"libvirt has not noticed {status.path}: `systemctl try-reload-or-restart libvirtd` (or virtqemud)",
        )
    changed = " (it was changed since)" if status.state == "modified" else ""
    return row("hooks", True, f"{status.path}{changed}")


async def _versions(context: Context) -> dict[str, Any]:
    """Names them; judges nothing."""
    found = [f"Linux {platform.release()}"]
    for name, ask in (
        ("libvirt", context.domains.version),
        ("hypervisor (QEMU or Xen)", context.domains.hypervisor_version),
    ):
        try:
            found.append(f"{name} {await ask()}")
        except VmnetError:
            found.append(f"{name} unknown (no answer)")
    return row("versions", True, ", ".join(found))


async def _libvirt(context: Context) -> dict[str, Any]:
    try:
        return row("libvirt", True, f"{context.config.libvirt.uri}: {await context.domains.version()}")
    except VmnetError as error:
        return row("libvirt", False, str(error))


async def _store(context: Context) -> dict[str, Any]:
    try:
        await context.store.space_check()
    except VmnetError as error:
        return row("journal", False, str(error))
    return row("journal", True, f"{context.store.settings.remote} can be written")
