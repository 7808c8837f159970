"""A lab that is up, for programs and tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

from vmnet.errors import NotFoundError
from vmnet.lab import ovn, places, schema, vms
from vmnet.lab.domain import Boot
from vmnet.lab.host import Host, Running, oldest_q35
from vmnet.lab.machines.host import MachineHost
from vmnet.lab.machines.node import MachineNode
from vmnet.lab.namespace_host import NamespaceHost
from vmnet.lab.node import Node
from vmnet.lab.paths import LabPaths, check_name
from vmnet.lab.state import State, load
from vmnet.lab.topology import Node as Spec
from vmnet.lab.topology import Topology, Vm


class Lab:
    """Nodes and VMs of one lab."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.paths = LabPaths(state.name)
        self.topology: Topology = places.placed(schema.parse(state.document), state.places)
        self.nodes: Mapping[str, Node] = {
            name: _kind(spec)(self.paths, spec) for name, spec in self.topology.nodes.items()
        }

    @classmethod
    def load(cls, name: str) -> Lab:
        """The lab of that name. Raises NotFoundError when it is not up, LabError when its record is damaged."""
        return cls(load(LabPaths(check_name(name))))

    @property
    def name(self) -> str:
        return self.state.name

    def node(self, name: str) -> Node:
        """Raises NotFoundError when there is no such node."""
        if name not in self.nodes:
            raise NotFoundError(f"lab '{self.name}' has no node '{name}'", f"it has: {', '.join(self.nodes)}")
        return self.nodes[name]

    def host(self, name: str) -> Host:
        """Raises NotFoundError when there is no such host."""
        node = self.node(name)
        if not isinstance(node, Host):
            hosts = ", ".join(h.name for h in self.hosts)
            raise NotFoundError(f"'{name}' in lab '{self.name}' is a {node.spec.kind}", f"its hosts: {hosts}")
        return node

    @cached_property
    def hosts(self) -> tuple[Host, ...]:
        return tuple(node for node in self.nodes.values() if isinstance(node, Host))

    def vm(self, name: str) -> Vm:
        """Description of a VM. Raises NotFoundError when the topology has none of that name."""
        if name not in self.topology.vms:
            raise NotFoundError(
                f"lab '{self.name}' has no VM '{name}'", f"it has: {', '.join(self.topology.vms)}"
            )
        return self.topology.vms[name]

    def running_vms(self) -> list[Running]:
        """Where QEMU runs what, found without libvirt. During a migration a VM is on both hosts."""
        return vms.running(self.hosts)

    def vm_define_and_start(self, vm: Vm | str, host: Host | str | None = None, *, wait: bool = True) -> None:
        """Boot a VM of the topology or one made by the caller, on ``host`` or where its description says.

        Waits for the guest's readiness unless ``wait`` is false. Raises LabError when it does not boot.
        """
        described = self.vm(vm) if isinstance(vm, str) else vm
        place = host if isinstance(host, Host) else self.host(host or described.host)
        boot = self._start(described, place)
        if wait:
            vms.wait_booted(described, place, boot)

    def start_vms(self) -> Iterator[str]:
        """Boot every VM of the topology that runs nowhere, side by side; yields the name of each that is up."""
        there = {found.vm for found in self.running_vms()}
        missing = [vm for vm in self.topology.vms.values() if vm.name not in there]
        started = [self._start(vm, self.host(vm.host)) for vm in missing]
        for vm, boot in zip(missing, started, strict=True):
            vms.wait_booted(vm, self.host(vm.host), boot)
            yield vm.name

    def _start(self, vm: Vm, host: Host) -> Boot:
        boot = self._boots(vm)[host.name]
        ovn.place(self.name, self.topology, self.nodes, vm, host.name)
        vms.start(vm, host, boot)
        return boot

    def _boots(self, vm: Vm) -> dict[str, Boot]:
        """What the VM is started with, for each host: all of them have its image, since it may migrate there."""
        console = self.paths.console(vm.name)
        boots = {host.name: host.boot(self.name, vm, console) for host in self.hosts}
        # every host's QEMU has to know the machine type
        machine = vm.machine or oldest_q35(boot.machine for boot in boots.values())
        return {name: replace(boot, machine=machine) for name, boot in boots.items()}


def _kind(spec: Spec) -> type[Node]:
    if spec.kind != "host":
        return MachineNode if spec.machine else Node
    return MachineHost if spec.machine else NamespaceHost
