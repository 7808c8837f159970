"""Open vSwitch of one node: a database and a switch of its own, userspace datapath, at the default socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab import packet_room
from vmnet.lab.node import Node
from vmnet.lab.ovn_ports import link_port
from vmnet.lab.spawn import last_line
from vmnet.lab.topology import Bridge, End, OpenFlow
from vmnet.lab.wait import wait_for

_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_RUN = "/run/openvswitch"
SOCKET = f"{_RUN}/db.sock"
_RECEIVE_BYTES = 8 << 20
_VSCTL = ("ovs-vsctl", "--timeout=10")  # without it ovs-vsctl waits for ever for a dead switch


def start(node: Node) -> None:
    """Start the daemons and make the node's OVS bridges, if it has any.

    Raises LabError when Open vSwitch is missing or does not start.
    """
    bridges = node.spec.own_vswitches
    if not bridges:
        return
    if not Path(_SCHEMA).exists():
        raise LabError("Open vSwitch is not installed", "apt-get install openvswitch-switch")
    _start_daemons(node)
    for bridge in bridges:
        _make_bridge(node, bridge)
    _make_room(node)


def _start_daemons(node: Node) -> None:
    node.run(["ovsdb-tool", "create", f"{_RUN}/conf.db", _SCHEMA])
    common = ["-vconsole:off", "-vfile:info"]
    node.spawn("ovsdb", [
        "ovsdb-server", f"{_RUN}/conf.db", f"--remote=punix:{SOCKET}",
        "--remote=db:Open_vSwitch,Open_vSwitch,manager_options", f"--unixctl={_RUN}/ovsdb-server.ctl",
        f"--log-file={_RUN}/ovsdb-server.log", *common,
    ])  # fmt: skip
    wait_socket(node, "ovsdb", "db.sock")
    node.run([*_VSCTL, "--no-wait", "init"])
    describe(node, {"system-id": node.name})
    node.spawn("vswitchd", [
        "ovs-vswitchd", f"unix:{SOCKET}", f"--unixctl={_RUN}/ovs-vswitchd.ctl",
        f"--pidfile={_RUN}/ovs-vswitchd.pid", f"--log-file={_RUN}/ovs-vswitchd.log", *common,
    ])  # fmt: skip
    wait_socket(node, "vswitchd", "ovs-vswitchd.ctl")


def describe(node: Node, external_ids: Mapping[str, str]) -> None:
    """What others are to know of this Open vSwitch (its ``external_ids``)."""
    said = [f'external_ids:{key}="{value}"' for key, value in external_ids.items()]
    node.run([*_VSCTL, "--no-wait", "set", "Open_vSwitch", ".", *said])


def wait_socket(node: Node, role: str, name: str, folder: str = "openvswitch") -> None:
    """Until a daemon has opened that socket in its run folder. Raises LabError when it ends or does not."""

    def there() -> bool:
        if node.service(role) is None:
            raise LabError(f"{role} on {node.name} ended: {last_line(node.log_file(role))}")
        return (node.run_dir / folder / name).exists()

    wait_for(f"{role} on {node.name} to open {name}", there, 10, 0.005)


def _make_bridge(node: Node, bridge: Bridge) -> None:
    mac = f'other_config:hwaddr="{bridge.mac}"'
    words = ["add-br", bridge.name, "--", "set", "bridge", bridge.name, "datapath_type=netdev", mac]
    words += ["--", "set", "interface", bridge.name, f"mtu_request={bridge.mtu}"]
    for port in bridge.ports:
        words += _port(node, bridge, port)
    if bridge.secure:
        words += ["--", "set-fail-mode", bridge.name, "secure"]
    node.run([*_VSCTL, *words], timeout=15)
    steer(node, bridge)
    node.run(["ip", "link", "set", "dev", bridge.name, "up"])


def steer(node: Node, bridge: Bridge) -> None:
    """Give a bridge that is there its controllers and its flows. Raises LabError when Open vSwitch refuses."""
    if bridge.openflow:
        set_controllers(node, bridge.name, _targets(bridge.openflow))
    if bridge.flows:
        node.run(["ovs-ofctl", "add-flows", bridge.name, "-"], text="\n".join(bridge.flows) + "\n")


def _port(node: Node, bridge: Bridge, port: str) -> list[str]:
    words = ["--", "add-port", bridge.name, port]
    if bridge.kind == "ovn":
        words += ["--", "set", "interface", port, f"external_ids:iface-id={link_port(End(node.name, port))}"]
    if port in bridge.numbers:  # flows and controllers go by them
        words += ["--", "set", "interface", port, f"ofport_request={bridge.numbers[port]}"]
    return words


def add_port(node: Node, bridge: Bridge, port: str) -> None:
    """A device of the node, into the bridge. Raises LabError when Open vSwitch cannot open it."""
    node.run([*_VSCTL, *_port(node, bridge, port)[1:]], timeout=15)
    complaint = node.run([*_VSCTL, "get", "interface", port, "error"]).stdout.strip()
    if complaint not in ("[]", '""'):
        raise LabError(f"Open vSwitch on {node.name} cannot use {port}: {complaint}")
    _make_room(node)


def remove_port(node: Node, bridge: Bridge, port: str) -> None:
    """Out of the bridge; nothing if it is not in it. Raises LabError when Open vSwitch does not answer."""
    waiting = [] if node.service("vswitchd") else ["--no-wait"]  # a dead switch has let go of it already
    node.run([*_VSCTL, *waiting, "--if-exists", "del-port", bridge.name, port], timeout=15)


def _targets(openflow: OpenFlow) -> list[str]:
    listen = [f"ptcp:{openflow.listen_port}"] if openflow.listen_port else []
    return [*listen, *([openflow.controller] if openflow.controller else [])]


def set_controllers(node: Node, bridge: str, targets: Sequence[str]) -> None:
    """From now on a bridge speaks OpenFlow with these and no others (``tcp:ADDRESS:PORT``, ``ptcp:PORT``; ovs-vsctl(8)).

    Raises LabError when Open vSwitch refuses. Out of band: else it would make flows of its own for the way to its controller. One
    that is away is looked for every second.
    """
    words: list[str] = []
    for n, target in enumerate(targets):
        words += [f"--id=@c{n}", "create", "controller", f'target="{target}"']
        words += ["connection_mode=out-of-band", "max_backoff=1000", "--"]
    names = ",".join(f"@c{n}" for n in range(len(targets)))
    node.run([*_VSCTL, *words, "set", "bridge", bridge, f"controller=[{names}]"], timeout=15)


def connected(node: Node, target: str) -> bool:
    """Whether the controller at ``target`` speaks with the node's switch. Raises LabError when Open vSwitch does not answer."""
    wanted = [f'target="{target}"', "is_connected=true"]
    return bool(node.run([*_VSCTL, "--bare", "find", "controller", *wanted]).stdout.strip())


def know_neighbour(node: Node, bridge: Bridge, address: str, mac: str) -> None:
    """Who has an IP address that tunnels by way of that bridge end at. Raises LabError when Open vSwitch does not answer."""
    to = ["--timeout=10", f"--target={_RUN}/ovs-vswitchd.ctl"]
    node.run(["ovs-appctl", *to, "tnl/neigh/set", bridge.name, address, mac])


def _make_room(node: Node) -> None:
    switch = node.service("vswitchd")
    if switch is not None:
        packet_room.enlarge(switch.pid, _RECEIVE_BYTES)
