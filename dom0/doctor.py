"""``vmnet doctor``: is this host fit to let VMs go and come? Each check: what, whether, and what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dom0.context import Context
from dom0.dataplane import bpf_syscall
from dom0.dataplane.gate_program import SHARED_BYTES, gate_code
from vmnet.errors import VmnetError

_HOOKS = Path("/etc/libvirt/hooks")


async def examine(context: Context) -> list[dict[str, Any]]:
    """A list of {"check", "ok", "detail"}; the detail of a failed check says what to do."""
    checks = [_kernel(), _tun(), _hold(context), _hooks(context)]
    checks.append(await _libvirt(context))
    checks.append(await _store(context))
    checks += [await _peer(context, name) for name in context.config.peers]
    return checks


def _result(check: str, ok: bool, detail: str) -> dict[str, Any]:
    return {"check": check, "ok": ok, "detail": detail}


def _kernel() -> dict[str, Any]:
    try:
        shared = bpf_syscall.create_shared_array(SHARED_BYTES, "vmnet_doctor")
        try:
            os.close(bpf_syscall.load_classifier(gate_code(shared), "vmnet_doctor"))
        finally:
            os.close(shared)
    except OSError as error:
        return _result(
            "gate",
            False,
            f"the kernel does not take the gate's program: {error.strerror}; Linux 5.10 or newer is needed",
        )
    return _result("gate", True, "the kernel takes the gate's program")


def _tun() -> dict[str, Any]:
    there = Path("/dev/net/tun").exists()
    return _result(
        "park",
        there,
        "/dev/net/tun is there" if there else "no /dev/net/tun: load the module (`modprobe tun`)",
    )


def _hold(context: Context) -> dict[str, Any]:
    limits = context.limits
    detail = f"{limits.queue_packets} packets an interface"
    if limits.short:
        detail += f": the kernel makes no longer queue (hold.max_packets is {limits.wanted_packets})"
    return _result("hold queue", True, detail)


def _hooks(context: Context) -> dict[str, Any]:
    driver = "libxl" if context.config.libvirt.uri.startswith("xen") else "qemu"
    found = [one for one in (_HOOKS / f"{driver}.d", _HOOKS) if any(one.glob("*vmnet*"))]
    detail = (
        f"installed in {found[0]}"
        if found
        else "not installed: run `vmnet hooks install` and restart libvirtd"
    )
    return _result("hooks", bool(found), detail)


async def _libvirt(context: Context) -> dict[str, Any]:
    try:
        return _result("libvirt", True, f"{context.config.libvirt.uri}: {await context.domains.version()}")
    except VmnetError as error:
        return _result("libvirt", False, str(error))


async def _store(context: Context) -> dict[str, Any]:
    try:
        await context.store.space_check()
    except VmnetError as error:
        return _result("journal", False, str(error))
    return _result("journal", True, f"{context.store.settings.remote} can be written")


async def _peer(context: Context, name: str) -> dict[str, Any]:
    try:
        offset = await context.peers[name].clock_offset_ns(4, 3.0)
    except VmnetError as error:
        return _result(f"peer {name}", False, str(error))
    return _result(f"peer {name}", True, f"answers; its clock is {offset / 1e6:+.2f} ms from ours")
