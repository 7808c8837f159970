"""The ways to migrate a router, or its flows, that are compared (Pisa 2010, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vmnet.bench.schemes import Argv, ours, virsh
from vmnet.errors import ConfigError

MACHINES = "machines-pisa"
"""The topology ``pisa`` whose hosts are full Debian machines."""


@dataclass(frozen=True, slots=True)
class RouterScheme:
    """``separated``: the host forwards (hooks and daemon on), else the VM itself. ``fewer``: it has its own number of runs."""

    name: str
    separated: bool
    argv: Argv
    fewer: bool = False
    good_codes: tuple[int, ...] = (0,)
    topology: str = "pisa"

    @property
    def lab(self) -> str:
        """Schemes of one lab take turns with the same VM."""
        kind = "separation" if self.separated else "standard"
        return f"machines-{kind}" if self.topology == MACHINES else kind


@dataclass(frozen=True, slots=True)
class FlowScheme:
    """No router and no VM: flows change their path on the switches."""

    name: str
    fewer: bool = False

    @property
    def lab(self) -> str:
        return self.name


Scheme = RouterScheme | FlowScheme
SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        RouterScheme("standard", False, virsh),
        # 8: migrated, but not clean; the meter says by how much
        RouterScheme("separation", True, ours, good_codes=(0, 8)),
        RouterScheme("separation-virsh", True, virsh, fewer=True),
        FlowScheme("openflow"),
        RouterScheme("machines-standard", False, virsh, topology=MACHINES),
        RouterScheme("machines-separation", True, ours, good_codes=(0, 8), topology=MACHINES),
        RouterScheme("machines-separation-virsh", True, virsh, fewer=True, topology=MACHINES),
    )
}


def find(names: list[str]) -> list[Scheme]:
    """Raises ConfigError for a name that is none."""
    for name in names:
        if name not in SCHEMES:
            raise ConfigError(f"no scheme '{name}'", f"there are: {', '.join(SCHEMES)}")
    return [SCHEMES[name] for name in names]
