"""Bringing a lab up: record, build, wire, start, wait."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from vmnet.errors import LabError, NotFoundError, VmnetError
from vmnet.lab import (
    accel,
    capabilities,
    controller,
    down,
    frr_node,
    image,
    mountpoints,
    net,
    ovn,
    ovs,
    schema,
    status,
)
from vmnet.lab.lab import Lab
from vmnet.lab.machines import bring_up
from vmnet.lab.machines.node import MachineNode
from vmnet.lab.namespace_host import NamespaceHost
from vmnet.lab.paths import LabPaths, check_name
from vmnet.lab.state import State, boot_id, lab_lock, load, locked, save
from vmnet.lab.topology import Topology

Tell = Callable[[str], None]
_PROGRAMS = [
    "ip",
    "nsenter",
    "unshare",
    "setsid",
    "mount",
    "libvirtd",
    "virtlogd",
    "virsh",
    "qemu-system-x86_64",
]


@dataclass(frozen=True)
class Options:
    name: str | None = None
    vms: bool = True
    hooks: bool | None = None
    """None: as the topology says."""
    daemon: bool | None = None
    keep_failed: bool = False
    memory_mib: int | None = None
    """Of every VM; None: as the topology says."""


def quiet(line: str) -> None:
    """A ``Tell`` that says nothing."""


def up(source: str, options: Options = Options(), tell: Tell = quiet) -> tuple[Lab, bool]:
    """Bring a lab up; the flag is False when it was up and well already.

    A dead or half-made lab of that name is taken down first. Raises ConfigError for a bad topology, LabError when the lab
    cannot be made (what was made is then removed, unless ``keep_failed``).
    """
    default_name, file = schema.find(source)
    name = check_name(options.name or default_name)
    document = schema.with_defaults(
        schema.load_document(file),
        hooks=options.hooks,
        daemon=options.daemon,
        memory_mib=options.memory_mib,
    )
    topology = schema.parse(document)
    controller.check(topology)
    _require()
    with locked(lab_lock(LabPaths(name)), f"lab '{name}'") as lock:
        existing = _existing(name, document, tell)
        if existing:
            return existing, _boot_missing(existing, options, tell)
        return _make(State(name, source, document, boot_id(), ()), topology, options, tell, lock), True


def _require() -> None:
    if os.geteuid() != 0:
        raise LabError("a lab needs root", "run it with sudo")
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise LabError(f"not installed: {', '.join(missing)}", "see docs/lab.md for the packages")


def _existing(name: str, document: Any, tell: Tell) -> Lab | None:
    """The lab if it is up and well; otherwise what is left of it is removed."""
    paths = LabPaths(name)
    try:
        lab = Lab(load(paths))
        alive = lab.state.complete and not status.dead_parts(lab)
    except VmnetError as error:
        if isinstance(error, NotFoundError) and not (paths.var.exists() or paths.existing_netns()):
            return None
        lab, alive = None, False
    if lab and alive:
        if lab.state.document != document:
            raise LabError(f"lab '{name}' is up with another topology", f"first: vmnet lab down {name}")
        return lab
    tell(f"removing what is left of lab '{name}'")
    down.remove(paths)
    return None


def _boot_missing(lab: Lab, options: Options, tell: Tell) -> bool:
    booted = list(lab.start_vms()) if options.vms else []
    for vm in booted:
        tell(f"{vm} is up")
    return bool(booted)


def _make(state: State, topology: Topology, options: Options, tell: Tell, lock: int) -> Lab:
    paths = LabPaths(state.name)
    state = replace(state, namespaces=tuple(paths.netns_name(node) for node in topology.nodes))
    save(paths, state)
    try:
        lab = Lab(state)
        _steps(lab, options, tell, lock)
    except BaseException:
        if not options.keep_failed:
            down.remove_traces(paths)
        raise
    lab.state = replace(state, complete=True)
    save(paths, lab.state)
    return lab


def _steps(lab: Lab, options: Options, tell: Tell, lock: int) -> None:
    nodes = list(lab.nodes.values())
    if options.vms and lab.topology.vms:
        image.ensure("small", tell)
    mountpoints.make()
    tell(f"lab '{lab.name}': {len(nodes)} namespaces")
    net.make_namespaces(nodes, lock)
    net.wire(lab.paths, lab.topology, nodes)
    for node in nodes:
        ovs.start(node)
    net.address(nodes)
    if routing := frr_node.start(nodes):
        tell(f"FRR is up on {', '.join(routing)}")
    if chassis := ovn.start(lab.name, lab.topology, lab.nodes):
        tell(f"OVN is up on {', '.join(chassis)}")
    for node in nodes:
        controller.start(node, lab.topology)
    _start_hosts(lab, tell)
    for node in nodes:
        if switches := controller.wait_fabric(node, lab.nodes, lab.topology):
            tell(f"the controller on {node.name} has {', '.join(switches)}")
    if options.vms and lab.topology.vms:
        tell(f"booting {', '.join(lab.topology.vms)} ({accel.choose(image.ensure('small'))})")
        for vm in lab.start_vms():
            tell(f"{vm} is up")
        first = lab.host(next(iter(lab.topology.vms.values())).host)
        if isinstance(first, NamespaceHost):
            capabilities.keep(first.var_dir / "cache-libvirt")


def _start_hosts(lab: Lab, tell: Tell) -> None:
    machines = [node for node in lab.nodes.values() if isinstance(node, MachineNode)]
    bring_up.bring_up(lab.name, lab.topology, machines, tell)
    _start_namespace_hosts(lab, [host for host in lab.hosts if isinstance(host, NamespaceHost)], tell)


def _start_namespace_hosts(lab: Lab, hosts: list[NamespaceHost], tell: Tell) -> None:
    for host in hosts:
        host.write_files(lab.name, lab.topology)
        host.start_libvirt()
    for host in hosts:
        host.wait_libvirt()
    if hosts:
        tell(f"libvirt is up on {', '.join(h.name for h in hosts)}")
    for host in hosts:
        host.start_daemon()
    for host in hosts:
        host.wait_daemon()
        if host.runs_daemon:
            tell(f"the daemon is up on {host.name}")


@contextmanager
def lab_up(
    source: str,
    name: str | None = None,
    *,
    vms: bool = True,
    hooks: bool | None = None,
    daemon: bool | None = None,
    memory_mib: int | None = None,
) -> Iterator[Lab]:
    """A lab for the length of a ``with`` block; always taken down."""
    wanted = check_name(name or schema.find(source)[0])
    try:
        yield up(source, Options(wanted, vms, hooks, daemon, memory_mib=memory_mib))[0]
    finally:
        down.down(wanted)
