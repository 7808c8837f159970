"""The ways to migrate that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from vmnet.errors import ConfigError
from vmnet.lab import Host

Argv = Callable[[str, Host, Host], list[str]]


@dataclass(frozen=True, slots=True)
class Scheme:
    """``managed``: hooks and daemons are on. ``argv(vm, source, destination)`` migrates there, run on the source.

    ``stays``: the VM does not migrate, it only stands still for a while: what the gap has beyond the downtime is then the guest's own.
    """

    name: str
    topology: str
    managed: bool
    argv: Argv
    good_codes: tuple[int, ...] = (0,)
    stays: bool = False

    @property
    def lab(self) -> str:
        """What the name of its lab ends with. Schemes of one lab take turns with the same VM."""
        return f"{self.topology}-vmnet" if self.managed else self.topology


def virsh(vm: str, source: Host, destination: Host) -> list[str]:
    target = [destination.libvirt_uri, destination.migrate_uri]
    return ["virsh", "-c", "qemu:///system", "migrate", "--live", vm, *target]


def ours(vm: str, source: Host, destination: Host) -> list[str]:
    return [*source.program("vmnet"), "migrate", vm, destination.name, "--json"]


def ovn(vm: str, source: Host, destination: Host) -> list[str]:
    words = ["-m", "vmnet.bench.ovn_migrate", vm, destination.name, destination.address]
    return [*source.program("python"), *words]


_STILL_S = 0.2
"""How long a VM that is only paused stands still: about the downtime of a migration."""


def pause(vm: str, source: Host, destination: Host) -> list[str]:
    return ["sh", "-ec", f"virsh -q suspend {vm}; sleep {_STILL_S}; virsh -q resume {vm}"]


def save(vm: str, source: Host, destination: Host) -> list[str]:
    file = f"/var/lib/libvirt/qemu/save/{vm}.bench"
    return ["sh", "-ec", f"virsh -q save {vm} {file}; virsh -q restore {file}; rm {file}"]


# 8: migrated, but not clean; the meter says by how much
_OURS_CODES = (0, 8)
MACHINES = ("machines", "machines-ovs", "machines-13", "machines-13-ovs")
"""Topologies whose hosts are full Debian machines."""


def _on_machines() -> Iterator[Scheme]:
    for topology in MACHINES:
        yield Scheme(f"{topology}-libvirt", topology, False, virsh)
        yield Scheme(f"{topology}-vmnet-virsh", topology, True, virsh)
        yield Scheme(f"{topology}-vmnet", topology, True, ours, good_codes=_OURS_CODES)
        yield Scheme(f"{topology}-pause", topology, True, pause, stays=True)
        yield Scheme(f"{topology}-save", topology, True, save, stays=True)


SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("libvirt-bridge", "pair", False, virsh),
        Scheme("libvirt-ovs", "pair-ovs", False, virsh),
        Scheme("ovn-multichassis", "pair-ovn", False, ovn),
        Scheme("vmnet-virsh", "pair", True, virsh),
        Scheme("vmnet", "pair", True, ours, good_codes=_OURS_CODES),
        Scheme("vmnet-openflow", "pair-openflow", True, ours, good_codes=_OURS_CODES),
        Scheme("pause", "pair", True, pause, stays=True),
        Scheme("save", "pair", True, save, stays=True),
        *_on_machines(),
        Scheme("machines-openflow-vmnet-virsh", "machines-openflow", True, virsh),
        Scheme("machines-openflow-vmnet", "machines-openflow", True, ours, good_codes=_OURS_CODES),
    )
}


def find(names: list[str]) -> list[Scheme]:
    """Raises ConfigError for a name that is none."""
    for name in names:
        if name not in SCHEMES:
            raise ConfigError(f"no scheme '{name}'", f"there are: {', '.join(SCHEMES)}")
    return [SCHEMES[name] for name in names]
