"""What of a lab is alive."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vmnet.lab import controller, frr_programs, ovn, places
from vmnet.lab.host import Host
from vmnet.lab.lab import Lab
from vmnet.lab.node import Node


def roles(node: Node) -> list[str]:
    """The processes that a healthy node has."""
    wanted = ["holder"]
    if node.spec.own_vswitches:
        wanted += ["ovsdb", "vswitchd"]
    wanted += ovn.roles(node.spec)
    if node.spec.frr:
        wanted += frr_programs.with_manager(node.spec.frr.daemons)
    if node.spec.controller is not None:
        wanted.append(controller.ROLE)
    return wanted + node.daemons()


def dead_parts(lab: Lab) -> list[str]:
    """What should live and does not, as ``node: role``."""
    dead = [f"{node.name}: namespace" for node in lab.nodes.values() if node.netns_inode is None]
    for node in lab.nodes.values():
        dead += [f"{node.name}: {role}" for role, pid in node.pids(roles(node)).items() if pid is None]
    dead += [f"{port.partition(':')[0]}: link (its move is unfinished)" for port in lab.state.moving]
    return dead


def report(lab: Lab) -> dict[str, Any]:
    """Everything ``vmnet lab status --json`` prints."""
    dead = dead_parts(lab)
    running = lab.running_vms()
    at = {one.client.node: places.name(one.switch) for one in places.mobile(lab.topology)}
    return {
        "name": lab.name,
        "topology": lab.state.source,
        "state": "up" if lab.state.complete and not dead else "damaged",
        "dead": dead,
        "nodes": {name: _node(node, at.get(name)) for name, node in lab.nodes.items()},
        "vms": {
            name: {
                "hosts": [r.host for r in running if r.vm == name],
                "pids": [r.pid for r in running if r.vm == name],
            }
            for name in sorted({*lab.topology.vms, *(r.vm for r in running)})
        },
    }


def _node(node: Node, at: str | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": node.spec.kind, "netns": node.netns_name, "pids": node.pids(roles(node))}
    if node.spec.machine:
        facts["machine"] = asdict(node.spec.machine)
    if at is not None:
        facts["at"] = at
    if isinstance(node, Host):
        facts |= {"libvirt_uri": node.libvirt_uri, "daemon_socket": str(node.daemon_socket)}
    return facts
