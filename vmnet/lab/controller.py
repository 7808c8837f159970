"""vmnet-controllerd in a node: its file, its process, and the switches that look for it there."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from vmnet.errors import ConfigError, LabError
from vmnet.lab import fabric_files, ovs, procs, toml
from vmnet.lab.node import Node
from vmnet.lab.spawn import last_line
from vmnet.lab.topology import Topology
from vmnet.lab.wait import wait_for

ROLE = "controllerd"
_FILE = "/etc/vmnet/controller.toml"
_START_S = 15.0
_CONNECT_S = 20.0


def check(topology: Topology) -> None:
    """Raises ConfigError when a controller would not take its settings."""
    for spec in topology.nodes.values():
        if spec.controller is None:
            continue
        from controller_bridge import settings as settings_

        path = f"topology: clients.{spec.name}.controller"
        try:
            settings_.parse(tomllib.loads(toml.dumps(fabric_files.controller(topology, spec))))
        except TypeError as error:
            raise ConfigError(f"{path}: {error}") from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.message}", error.hint) from None


def write_fabric(folder: Path, topology: Topology) -> None:
    """For `vmnet flows` and `vmnet follow`, if there are switches that can be asked."""
    if fabric := fabric_files.fabric(topology):
        (folder / "fabric.toml").write_text(toml.dumps(fabric))


def start(node: Node, topology: Topology) -> None:
    """Start it, if the topology wants it, and wait until it listens. Raises LabError when it does not."""
    if node.spec.controller is None:
        return
    etc = node.var_dir / "etc-vmnet"
    (etc / Path(_FILE).name).write_text(toml.dumps(fabric_files.controller(topology, node.spec)))
    write_fabric(etc, topology)
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
    switches = fabric_files.switches(topology, node.spec) if node.spec.controller is not None else {}
    for name, target in switches.items():
        what = f"switch {name} to find the controller on {node.name}"
        wait_for(what, partial(ovs.connected, lab[name], target), _CONNECT_S, 0.1)
    return list(switches)
