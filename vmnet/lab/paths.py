"""Names and folders of a lab. Nothing here touches the system."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from vmnet.errors import ConfigError

RUN_ROOT = Path("/run/vmnet-lab")
VAR_ROOT = Path("/var/lib/vmnet-lab")
NETNS_ROOT = Path("/run/netns")
REPOSITORY = Path(__file__).resolve().parents[2]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def cache_dir() -> Path:
    """Where guest images and probe verdicts are kept (``VMNET_CACHE`` overrides)."""
    return Path(os.environ.get("VMNET_CACHE", "/var/cache/vmnet"))


def check_name(name: str) -> str:
    """The name itself if a lab may be called that.

    Raises ConfigError otherwise.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}' cannot name a lab", "use up to 32 of a-z, 0-9, _ and -")
    return name


@dataclass(frozen=True)
class LabPaths:
    """Every path that one lab uses."""

    name: str

    @property
    def run(self) -> Path:
        return RUN_ROOT / self.name

    @property
    def var(self) -> Path:
        return VAR_ROOT / self.name

    @property
    def state(self) -> Path:
        return self.run / "lab.json"

    @property
    def pids(self) -> Path:
        return self.run / "pids"

    @property
    def logs(self) -> Path:
        return self.var / "log"

    @property
    def consoles(self) -> Path:
        return self.var / "console"

    def node_run(self, node: str) -> Path:
        """What the node sees as /run."""
        return self.run / "nodes" / node

    def node_var(self, node: str) -> Path:
        return self.var / "nodes" / node

    def console(self, vm: str) -> Path:
        return self.consoles / f"{vm}.log"

    def netns_name(self, node: str) -> str:
        """Node names hold no ``-``, so the last one separates lab and node."""
        return f"vmnet-{self.name}-{node}"

    def netns(self, node: str) -> Path:
        return NETNS_ROOT / self.netns_name(node)

    def existing_netns(self) -> list[Path]:
        """Namespaces of this lab that exist now, recorded or not."""
        found = NETNS_ROOT.glob(f"vmnet-{self.name}-*")
        return sorted(p for p in found if p.name.rpartition("-")[0] == f"vmnet-{self.name}")


def known_labs() -> list[str]:
    """Names of labs that left any trace: running, half made or dead."""
    names = {p.name for root in (RUN_ROOT, VAR_ROOT) if root.is_dir() for p in root.iterdir() if p.is_dir()}
    names |= {p.name.removeprefix("vmnet-").rpartition("-")[0] for p in NETNS_ROOT.glob("vmnet-*-*")}
    return sorted(n for n in names if _NAME.fullmatch(n))
