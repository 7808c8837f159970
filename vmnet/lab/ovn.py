"""OVN of a lab: databases and northd in one node, an ovn-controller in each with a bridge that is ``ovn``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab import ovn_ports, ovs
from vmnet.lab.node import Node
from vmnet.lab.topology import Bridge, Topology, Vm
from vmnet.lab.topology import Node as Spec

_SCHEMAS = Path("/usr/share/ovn")
_RUN = "/run/ovn"
_PORTS = {"nb": 6641, "sb": 6642}
_LIMIT_S = 30
_LOGS = ("-vconsole:off", "-vfile:info")


def roles(spec: Spec) -> list[str]:
    """OVN's processes in a node."""
    central = ["ovn-nb", "ovn-sb", "northd"] if spec.ovn_central else []
    return central + (["ovn-controller"] if _bridge(spec) else [])


def start(lab: str, topology: Topology, nodes: Mapping[str, Node]) -> list[str]:
    """Start OVN if the topology has it, and wait until every chassis goes by it; names of those nodes.

    Raises LabError when OVN is missing or does not get there.
    """
    if topology.central is None:
        return []
    if not (_SCHEMAS / "ovn-nb.ovsschema").exists():
        raise LabError("OVN is not installed", "apt-get install ovn-central ovn-host")
    central = nodes[topology.central.name]
    _start_central(central)
    ports = list(ovn_ports.logical_ports(lab, topology))
    _nbctl(central, "init")
    if ports:
        _nbctl(central, *ovn_ports.words(ports))
    chassis = [node for node in nodes.values() if _bridge(node.spec)]
    for node in chassis:
        _start_chassis(node, topology.central)
    _introduce(chassis)
    _wait(central, [node.name for node in chassis], [port.name for port in ports if not port.guarded])
    return [node.name for node in chassis]


def place(lab: str, topology: Topology, nodes: Mapping[str, Node], vm: Vm, host: str) -> None:
    """A VM boots on that host: its ports are to be there alone. Nothing without OVN. Raises LabError when OVN does not answer."""
    kinds = {bridge.name: bridge.kind for bridge in nodes[host].spec.bridges}
    numbers = [number for number, one in enumerate(vm.interfaces) if kinds[one.bridge] == "ovn"]
    if topology.central is None or not numbers:
        return
    words: list[str] = []
    for name in (ovn_ports.vm_port(lab, vm.name, number) for number in numbers):
        words += ["--", "lsp-set-options", name, f"requested-chassis={host}"]
    _nbctl(nodes[topology.central.name], *words[1:])


def _bridge(spec: Spec) -> str:
    return next((bridge.name for bridge in spec.bridges if bridge.kind == "ovn"), "")


def _start_central(node: Node) -> None:
    (node.run_dir / "ovn").mkdir(exist_ok=True)
    for name, port in _PORTS.items():
        node.run(["ovsdb-tool", "create", f"{_RUN}/ovn{name}_db.db", str(_SCHEMAS / f"ovn-{name}.ovsschema")])
        node.spawn(f"ovn-{name}", [
            "ovsdb-server", f"{_RUN}/ovn{name}_db.db", f"--remote=punix:{_RUN}/ovn{name}_db.sock",
            f"--remote=ptcp:{port}:{node.spec.underlay}", *_files(f"ovn{name}_db"),
        ])  # fmt: skip
        ovs.wait_socket(node, f"ovn-{name}", f"ovn{name}_db.sock", "ovn")
    databases = [f"--ovn{name}-db=unix:{_RUN}/ovn{name}_db.sock" for name in _PORTS]
    node.spawn("northd", ["ovn-northd", *databases, *_files("ovn-northd")])
    ovs.wait_socket(node, "northd", "ovn-northd.ctl", "ovn")


def _start_chassis(node: Node, central: Spec) -> None:
    (node.run_dir / "ovn").mkdir(exist_ok=True)
    known = {
        "hostname": node.name,
        "ovn-bridge": _bridge(node.spec),
        "ovn-bridge-datapath-type": "netdev",
        "ovn-encap-type": "geneve",
        "ovn-encap-ip": node.spec.underlay,
        "ovn-nb": f"tcp:{central.underlay}:{_PORTS['nb']}",
        "ovn-remote": f"tcp:{central.underlay}:{_PORTS['sb']}",
    }
    ovs.describe(node, known)
    files = [f"--pidfile={_RUN}/ovn-controller.pid", _log("ovn-controller"), *_LOGS]
    process = node.spawn("ovn-controller", ["ovn-controller", f"unix:{ovs.SOCKET}", *files])
    # OVN 23.03 names it so, whatever it is told
    ovs.wait_socket(node, "ovn-controller", f"ovn-controller.{process.pid}.ctl", "ovn")


def _introduce(chassis: list[Node]) -> None:
    """Tell each the others' MAC addresses.

    Open vSwitch asks for one when the first packet is to go into its tunnel, and drops that packet: one lab in twenty lost it.
    """
    for node in chassis:
        for other in (one for one in chassis if one is not node):
            ovs.know_neighbour(node, _underlay(node.spec), other.spec.underlay, _underlay(other.spec).mac)


def _underlay(spec: Spec) -> Bridge:
    """The bridge that tunnels go by. Raises LabError when the address is not on one of Open vSwitch: it finds no other way."""
    for bridge in spec.bridges:
        addresses = (one.partition("/")[0] for one in spec.addresses.get(bridge.name, ()))
        if bridge.is_vswitch and spec.underlay in addresses:
            return bridge
    raise LabError(
        f"{spec.name}: its first IPv4 address is not on a bridge of kind ovs", "OVN's tunnels need one"
    )


def _files(name: str) -> list[str]:
    return [f"--unixctl={_RUN}/{name}.ctl", _log(name), *_LOGS]


def _log(name: str) -> str:
    return f"--log-file={_RUN}/{name}.log"


def _wait(central: Node, chassis: list[str], ports: list[str]) -> None:
    """Until every chassis is known, has the ports that are there, and has done all that the databases say."""
    limit = f"--timeout={_LIMIT_S}"
    for name in chassis:
        central.run(["ovn-sbctl", limit, "wait-until", "Chassis", name], timeout=_LIMIT_S + 5)
    for name in ports:
        central.run(
            ["ovn-nbctl", limit, "wait-until", "Logical_Switch_Port", name, "up=true"], timeout=_LIMIT_S + 5
        )
    _nbctl(central, "--wait=hv", "sync")


def _nbctl(central: Node, *words: str) -> None:
    central.run(["ovn-nbctl", f"--timeout={_LIMIT_S}", *words], timeout=_LIMIT_S + 5)
