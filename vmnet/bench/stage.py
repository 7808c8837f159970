"""The labs of a bench. All are up all the time, but only the VM under test runs; the others are suspended."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from vmnet.bench import clocks
from vmnet.bench.child import PIPES, Child
from vmnet.bench.schemes import Scheme
from vmnet.errors import LabError, UnavailableError, VmnetError
from vmnet.lab import Host, Lab, Options, lab_up, up
from vmnet.lab.host import Limits
from vmnet.probe.control import Control

VM = "vm1"
CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Place:
    """A lab with a stream of QEMU's events from each of its hosts."""

    lab: Lab
    events: dict[str, Child]
    vm: str = VM
    clocks: dict[str, float] = field(default_factory=dict, kw_only=True)
    """Host -> by how many seconds its clock is ahead of ours."""

    @property
    def limits(self) -> Limits:
        return self.lab.hosts[0].limits

    def compare_clocks(self) -> None:
        """Ask hosts that have a clock of their own what time it is. Raises WaitTimeoutError when one does not answer."""
        for host in self.lab.hosts:
            if host.own_clock:
                self.clocks[host.name] = clocks.ahead_s(self.events[host.name])

    def events_of(self, host: Host) -> list[dict[str, Any]]:
        """QEMU's events on that host so far, by our clock."""
        ahead_s = self.clocks.get(host.name, 0.0)
        return [
            {**event, "t": event["t"] - ahead_s}
            for event in list(self.events[host.name].lines)
            if "t" in event
        ]

    def where(self) -> Host | None:
        """The one host on which the VM runs, ``None`` when it runs nowhere or (during a migration) on two."""
        found = [r.host for r in self.lab.running_vms() if r.vm == self.vm]
        return self.lab.host(found[0]) if len(found) == 1 else None

    def other(self, host: Host) -> Host:
        return next(h for h in self.lab.hosts if h.name != host.name)

    def settled(self) -> Host:
        """Where the VM runs once no migration is under way; boots it if it is gone. Raises LabError."""
        deadline = time.monotonic() + self.limits.settle_s
        while time.monotonic() < deadline:
            host = self.where()
            if host:
                return host
            if not any(r.vm == self.vm for r in self.lab.running_vms()):
                list(self.lab.start_vms())
            time.sleep(0.05)
        raise LabError(
            f"{self.vm} of lab {self.lab.name} still runs on two hosts after {self.limits.settle_s:g} s"
        )

    def answers(self, timeout_s: float | None = None) -> bool:
        """Whether the guest's responder can be reached from the client. ``timeout_s``: else what the hosts need."""
        limit_s = self.limits.answer_s if timeout_s is None else timeout_s

        def hello() -> bool:
            with Control(self.address()) as control:
                control.hello(limit_s)
            return True

        try:
            return self.lab.node(CLIENT).call(hello)
        except VmnetError:
            return False

    def reboot(self) -> None:
        """After a run that broke the VM: away with it wherever it is, and a fresh one."""
        there = {r.host for r in self.lab.running_vms() if r.vm == self.vm}
        for name in there:
            self.lab.host(name).run(["virsh", "--quiet", "destroy", self.vm], check=False)
        self.settled()

    def address(self) -> str:
        """The VM's first IPv4 address."""
        every = (a for i in self.lab.vm(self.vm).interfaces for a in i.addresses)
        found = next((a.partition("/")[0] for a in every if ":" not in a), None)
        if found is None:
            raise LabError(f"{self.vm} of lab {self.lab.name} has no IPv4 address")
        return found


class Stage:
    """``focus`` on one lab: its VM runs and all others are suspended."""

    def __init__(self, places: dict[str, Place]) -> None:
        self._places = places
        self._awake = set(places)

    def focus(self, name: str) -> Place:
        for other in self._awake - {name}:
            self._virsh(other, "suspend")
            for node in self._places[other].lab.nodes.values():
                node.freeze()
        place = self._places[name]
        if name not in self._awake:
            for node in place.lab.nodes.values():
                node.thaw()
            self._virsh(name, "resume")
        self._awake = {name}
        if not place.answers():
            place.reboot()
        return place

    def _virsh(self, name: str, verb: str) -> None:
        place = self._places[name]
        for host in {r.host for r in place.lab.running_vms() if r.vm == VM}:
            place.lab.host(host).run(["virsh", "--quiet", verb, VM], check=False)


@contextmanager
def stage(name: str, schemes: Iterable[Scheme], keep: bool, memory_mib: int | None = None) -> Iterator[Stage]:
    """The labs that the schemes need, as ``NAME-pair-ovs`` and ``NAME-pair-vmnet``; ``keep`` leaves them up.

    ``memory_mib``: of the VM; None: as the topologies say.
    """
    with ExitStack() as stack:
        places: dict[str, Place] = {}
        for scheme in schemes:
            if scheme.lab not in places:
                lab = _lab(stack, f"{name}-{scheme.lab}", scheme, keep, memory_mib)
                places[scheme.lab] = Place(lab, {h.name: stack.enter_context(listen(h)) for h in lab.hosts})
                _has_daemons(lab, scheme)
        yield Stage(places)


def _lab(stack: ExitStack, name: str, scheme: Scheme, keep: bool, memory_mib: int | None) -> Lab:
    ours = scheme.managed
    if keep:
        return up(scheme.topology, Options(name, hooks=ours, daemon=ours, memory_mib=memory_mib))[0]
    return stack.enter_context(lab_up(scheme.topology, name, hooks=ours, daemon=ours, memory_mib=memory_mib))


def _has_daemons(lab: Lab, scheme: Scheme) -> None:
    for host in lab.hosts:
        if scheme.managed and host.ping() is None:
            raise UnavailableError(
                f"scheme {scheme.name} needs the daemon, and none answers on host {host.name}"
            )


def listen(host: Host) -> Child:
    argv = [*host.program("python"), "-m", "vmnet.bench.qemu_events", "qemu:///system"]
    child = Child(f"the QEMU event listener on {host.name}", host.popen(argv, **PIPES))
    child.expect("ready", lambda line: "ready" in line, host.limits.events_s)
    return child
