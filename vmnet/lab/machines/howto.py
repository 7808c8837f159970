"""docs/install.md, step by step, for a machine of the lab: what is copied to the host, and what is typed there.

Step 1, the packages, and of step 2 what takes minutes is in the image (packages.py, bake.sh).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmnet import pki
from vmnet.lab import fabric_files, toml
from vmnet.lab.machines.tree import PACKAGES
from vmnet.lab.topology import Node, Topology

PYTHON = "/opt/vmnet/.venv/bin/python"
DAEMON_UNIT = "vmnet-dom0d"


def libvirt_uri(host: Node) -> str:
    return f"qemu+tls://{host.underlay}/system"


# Step 2: vmnet. The archive of this copy is the command's standard input. What pip installed of it gives way; files that are the
# same stay, and with them their bytecode.
VMNET = f"""
set -e
tar -xf - -C /opt/vmnet
site=$(echo /opt/vmnet/.venv/lib/python3*/site-packages)
for package in {" ".join(PACKAGES)}; do
    rsync -rcL --delete --exclude=__pycache__ "/opt/vmnet/$package/" "$site/$package/"
done
"""


def certificates(topology: Topology, folder: Path) -> None:
    """Step 3, on the computer that is trusted: a CA, and a certificate for each host."""
    pki.init(folder, force=True)
    for host in topology.hosts:
        pki.host(host.name, folder, [host.underlay], force=True)


def files(topology: Topology, host: Node, folder: Path) -> dict[str, tuple[bytes, int]]:
    """What steps 3 and 5 put on the host: path -> content and mode."""
    found = {"/etc/vmnet/vmnet.toml": (toml.dumps(configuration(topology, host)).encode(), 0o644)}
    for file in sorted((folder / host.name).iterdir()):
        found[f"/etc/vmnet/pki/{file.name}"] = (file.read_bytes(), file.stat().st_mode & 0o777)
    if fabric := fabric_files.fabric(topology):
        found["/etc/vmnet/fabric.toml"] = (toml.dumps(fabric).encode(), 0o644)
    return found


def configuration(topology: Topology, host: Node) -> Mapping[str, Any]:
    """Step 5: vmnet.toml; the topology's own ``config`` wins."""
    peers = {
        other.name: {
            "address": other.underlay,
            "libvirt_uri": libvirt_uri(other),
            "migrate_uri": f"tcp://{other.underlay}",
        }
        for other in topology.hosts
        if other.name != host.name
    }
    base: dict[str, Any] = {
        "host": {"name": host.name},
        "listen": {"tunnel_address": host.underlay},
        "peers": peers,
    }
    if segments := {b.name: {"segment": b.segment} for b in host.bridges if b.segment != "lan"}:
        base["bridges"] = segments
    if rerouter := fabric_files.rerouter(topology, host):
        base["rerouter"] = rerouter
    return toml.merged(base, host.config)


LIBVIRT = """
vmnet pki libvirt
systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service
systemctl enable --now libvirtd-tls.socket
systemctl start libvirtd.service
"""
"""Step 4, the part with TLS."""
CHECK = """
vmnet-dom0d --check
"""
"""The end of step 5. Of step 6 there is nothing to do: Debian installs no rules."""
HOOKS = """
vmnet hooks install
systemctl try-reload-or-restart libvirtd
"""
DAEMON = f"""
cp /opt/vmnet/scripts/vmnet-dom0d.service /etc/systemd/system/
systemctl daemon-reload
systemctl enable --now {DAEMON_UNIT}
"""
"""These two are step 7."""
