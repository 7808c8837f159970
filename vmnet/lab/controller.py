"""vmnet-controllerd in a node: its file, its process, and the switches that look for it there."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from functools import partial
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

from vmnet.errors import ConfigError, LabError
from vmnet.lab import ovs, procs, toml
from vmnet.lab.node import Node
from vmnet.lab.schema_switch import host_of
from vmnet.lab.spawn import last_line
from vmnet.lab.topology import Node as Spec
from vmnet.lab.topology import Topology
from vmnet.lab.wait import wait_for

ROLE = "controllerd"
_FILE = "/etc/vmnet/controller.toml"
_START_S = 15.0
_CONNECT_S = 20.0


def settings(topology: Topology, spec: Spec) -> dict[str, Any]:
    """The controller's settings, the topology's own over what follows from it.

    It listens where switches look for it; they are called as in the topology; where no switch can be is ``outside``.
    """
    found = _switches(topology, spec)
    base = {
        "listen": list(dict.fromkeys(found.values())),
        "outside": [f"{name}:{port}" for name in found for port in _outside(topology, name)],
        "switches": {name: topology.nodes[name].bridges[0].datapath for name in found},
    }
    return toml.merged({key: value for key, value in base.items() if value}, spec.controller or {})


def check(topology: Topology) -> None:
    """Raises ConfigError when a controller would not take its settings."""
    for spec in topology.nodes.values():
        if spec.controller is None:
            continue
        from controller_bridge import settings as settings_

        path = f"topology: clients.{spec.name}.controller"
        try:
            settings_.parse(tomllib.loads(toml.dumps(settings(topology, spec))))
        except TypeError as error:
            raise ConfigError(f"{path}: {error}") from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.message}", error.hint) from None


def _switches(topology: Topology, spec: Spec) -> dict[str, str]:
    """Switches that look for their controller on that node, and where."""
    own = {ip_interface(address).ip for group in spec.addresses.values() for address in group}
    every = ((node.name, one.openflow) for node in topology.nodes.values() for one in node.bridges)
    wanted = {name: openflow.controller for name, openflow in every if openflow and openflow.controller}
    return {name: target for name, target in wanted.items() if ip_address(host_of(target)) in own}


def _outside(topology: Topology, switch: str) -> list[str]:
    """Ports of a switch that lead to no switch, and those at which clients come and go."""
    spec = topology.nodes[switch]
    away = [
        end.port
        for end, other in topology.across().items()
        if end.node == switch
        and end.port not in spec.addresses
        and topology.nodes[other.node].kind != "switch"
    ]
    return list(dict.fromkeys([*away, *spec.access]))


def start(node: Node, topology: Topology) -> None:
    """Start it, if the topology wants it, and wait until it listens. Raises LabError when it does not."""
    if node.spec.controller is None:
        return
    wanted = settings(topology, node.spec)
    (node.var_dir / "etc-vmnet" / Path(_FILE).name).write_text(toml.dumps(wanted))
    sibling = Path(sys.executable).with_name("vmnet-controllerd")
    program = [str(sibling)] if sibling.exists() else [sys.executable, "-m", "controller_bridge.main"]
    node.spawn(ROLE, [*program, "--config", _FILE])
    _wait_listening(node)


def _wait_listening(node: Node) -> None:
    from controller_bridge import settings as settings_

    ports = {
        one.port for one in settings_.read(node.var_dir / "etc-vmnet" / Path(_FILE).name).listen if one.port
    }

    def listens() -> bool:
        process = node.service(ROLE)
        if process is None:
            raise LabError(
                f"the controller on {node.name} ended", f"its log ends: {last_line(node.log_file(ROLE))}"
            )
        return ports <= procs.listening(process.pid)

    wait_for(f"the controller on {node.name} to listen", listens, _START_S)


def wait_fabric(node: Node, lab: Mapping[str, Node], topology: Topology) -> list[str]:
    """Until the switches that look for the controller on ``node`` have found it; their names.

    Raises LabError when one does not.
    """
    switches = _switches(topology, node.spec) if node.spec.controller is not None else {}
    for name, target in switches.items():
        what = f"switch {name} to find the controller on {node.name}"
        wait_for(what, partial(ovs.connected, lab[name], target), _CONNECT_S, 0.1)
    return list(switches)
