"""The ways to migrate that are compared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vmnet.errors import ConfigError

Argv = Callable[[str, str, str], list[str]]


@dataclass(frozen=True, slots=True)
class Scheme:
    """``managed``: hooks and daemons are on. ``argv(vm, name, address)`` migrates to that host, run on the source host."""

    name: str
    topology: str
    managed: bool
    argv: Argv
    good_codes: tuple[int, ...] = (0,)

    @property
    def lab(self) -> str:
        """What the name of its lab ends with. Schemes of one lab take turns with the same VM."""
        return f"{self.topology}-vmnet" if self.managed else self.topology


def virsh(vm: str, name: str, address: str) -> list[str]:
    target = [f"qemu+tcp://{address}/system", f"tcp://{address}"]
    return ["virsh", "-c", "qemu:///system", "migrate", "--live", vm, *target]


def ours(vm: str, name: str, address: str) -> list[str]:
    sibling = Path(sys.executable).with_name("vmnet")
    program = [str(sibling)] if sibling.exists() else [sys.executable, "-m", "vmnet.cli.entry"]
    return [*program, "migrate", vm, name, "--json"]


def ovn(vm: str, name: str, address: str) -> list[str]:
    return [sys.executable, "-m", "vmnet.bench.ovn_migrate", vm, name, address]


# 8: migrated, but not clean; the meter says by how much
SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("libvirt-bridge", "pair", False, virsh),
        Scheme("libvirt-ovs", "pair-ovs", False, virsh),
        Scheme("ovn-multichassis", "pair-ovn", False, ovn),
        Scheme("vmnet-virsh", "pair", True, virsh),
        Scheme("vmnet", "pair", True, ours, good_codes=(0, 8)),
        Scheme("vmnet-openflow", "pair-openflow", True, ours, good_codes=(0, 8)),
    )
}


def find(names: list[str]) -> list[Scheme]:
    """Raises ConfigError for a name that is none."""
    for name in names:
        if name not in SCHEMES:
            raise ConfigError(f"no scheme '{name}'", f"there are: {', '.join(SCHEMES)}")
    return [SCHEMES[name] for name in names]
