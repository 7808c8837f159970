"""The configuration files of a host: libvirt's and ours. Pure text."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from vmnet.lab import fabric_files, toml
from vmnet.lab.topology import Node, Topology

_NAMESPACE = uuid.UUID("6f1b2f0e-6a0f-4c5e-9a51-6d6e65740001")

QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
"""


def stable_uuid(*what: str) -> str:
    """A UUID that is the same in every run."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(what)))


def libvirtd_conf(lab: str, host: Node) -> str:
    """TCP without authentication, reachable only inside the lab; a host UUID of its own, or two hosts are one to libvirt."""
    return f"""\
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
listen_addr = "{host.underlay}"
host_uuid = "{stable_uuid(lab, "host", host.name)}"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""


def vmnet_toml(topology: Topology, host: Node) -> str:
    """The daemon's configuration (docs/architecture.md); the topology's own ``config`` wins."""
    peers = {
        other.name: {
            "address": other.underlay,
            "libvirt_uri": f"qemu+tcp://{other.underlay}/system",
            "migrate_uri": f"tcp://{other.underlay}",
        }
        for other in topology.hosts
        if other.name != host.name
    }
    base: Mapping[str, Any] = {
        "host": {"name": host.name},
        "libvirt": {"uri": "qemu:///system"},
        "listen": {"address": host.underlay, "tunnel_address": host.underlay},
        "tls": {"plain": True},
        "peers": peers,
        "bridges": {b.name: {"segment": b.segment} for b in host.bridges},
    }
    told = fabric_files.rerouter(topology, host)
    return toml.dumps(toml.merged({**base, "rerouter": told} if told else base, host.config))
