"""Machines of a lab: from a state that all share to hosts of their own, then the steps of the install how-to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab import accel, image, ovs, wiring
from vmnet.lab.command import run
from vmnet.lab.machines import clock, howto, identity, qemu, tree, warm
from vmnet.lab.machines.host import MachineHost
from vmnet.lab.machines.image import Tell
from vmnet.lab.machines.node import MachineNode
from vmnet.lab.machines.qmp import Qmp
from vmnet.lab.topology import Machine, Topology
from vmnet.lab.wait import wait_for

_LOAD_S = 120.0
_PLUG_S = 60.0
_STEP_S = 120.0

# Argument: the host's UUID.
_IDENTITY = """
set -e
tar -xf - -C /
hostname -F /etc/hostname
systemctl restart systemd-journald.service  # its folder is named by the machine's ID
for daemon in libvirtd virtqemud; do
    file=/etc/libvirt/$daemon.conf
    [ -e $file ] || continue
    sed -i '/^host_uuid = /d' $file
    echo "host_uuid = \\"$1\\"" >> $file
done
systemctl reload ssh.service
udevadm control --reload
echo "$1" > /etc/openvswitch/system-id.conf
ovs-vsctl --timeout=60 --no-wait set Open_vSwitch . "external-ids:system-id=\\"$1\\""
"""
# Open vSwitch's part of ifupdown gives up after 5 s
_NETWORK = """
ifup "$@" || { sleep 1; ifdown --force "$@"; ifup "$@"; }
"""


@dataclass(frozen=True)
class Secrets:
    """Folder of a lab: certificates, the machines' ssh keys, the key with which each host's root comes to the others."""

    folder: Path

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    def make(self, topology: Topology) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        howto.certificates(topology, self.pki)
        for name in ("root", *(node.name for node in topology.nodes.values() if node.machine)):
            file = str(self.folder / f"{name}.ssh")
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file])

    def private(self, name: str) -> bytes:
        return (self.folder / f"{name}.ssh").read_bytes()

    def public(self, name: str) -> bytes:
        return (self.folder / f"{name}.ssh.pub").read_bytes()

    def known_hosts(self, topology: Topology) -> bytes:
        lines = (f"{h.underlay},{h.name} {self.public(h.name).decode().strip()}\n" for h in topology.hosts)
        return "".join(lines).encode()


def bring_up(lab: str, topology: Topology, nodes: Sequence[MachineNode], tell: Tell) -> None:
    """All machines, side by side. Raises LabError when one does not come up."""
    if not nodes:
        return
    chosen = accel.choose(image.ensure("small"))
    kept = {node.name: warm.ensure(_machine(node), chosen, tell) for node in nodes}
    secrets = Secrets(nodes[0].paths.var / "machines")
    secrets.make(topology)
    archive = secrets.folder / "vmnet.tar"
    tree.pack(archive)
    for node in nodes:
        uuid = identity.host_uuid(lab, node.spec)
        warm.start(node, _machine(node), kept[node.name], uuid, topology.ports(node.name))
    with ThreadPoolExecutor(len(nodes)) as pool:
        works = [pool.submit(_set_up, lab, topology, node, secrets, archive, tell) for node in nodes]
        for work in works:
            work.result()


def _machine(node: MachineNode) -> Machine:
    if node.spec.machine is None:
        raise LabError(f"{node.name} is no machine")
    return node.spec.machine


def _set_up(
    lab: str, topology: Topology, node: MachineNode, secrets: Secrets, archive: Path, tell: Tell
) -> None:
    begin = time.monotonic()
    _resume(node)
    node.connect()
    clock.set_clock(node)  # it stood still while the state was kept
    tell(f"machine {node.name} answers after {time.monotonic() - begin:.0f} s")
    _become(lab, topology, node, secrets)
    _plug(lab, topology, node)
    tell(f"machine {node.name} is on its networks after {time.monotonic() - begin:.0f} s")
    if isinstance(node, MachineHost):
        _install(topology, node, secrets, archive)
        if node.runs_daemon:
            tell(f"the daemon is up on {node.name} after {time.monotonic() - begin:.0f} s")
    else:
        for bridge in node.spec.bridges:
            ovs.steer(node, bridge)


def _install(topology: Topology, host: MachineHost, secrets: Secrets, archive: Path) -> None:
    """vmnet, as the how-to says."""
    host.feed(["sh", "-c", howto.VMNET], archive.read_bytes(), _STEP_S)
    host.feed(["tar", "-xf", "-", "-C", "/"], identity.archive(howto.files(topology, host.spec, secrets.pki)))
    for step, wanted in (
        (howto.LIBVIRT, True),
        (howto.CHECK, True),
        (howto.HOOKS, host.spec.hooks),
        (howto.DAEMON, host.runs_daemon),
    ):
        if wanted:
            host.run(["sh", "-ec", step], timeout=_STEP_S)
    host.wait_daemon()


def _resume(node: MachineNode) -> None:
    """Let the machine go on where its state was kept. Raises LabError when QEMU ended instead."""

    def loaded() -> bool:
        if node.service("qemu") is None:
            log = node.log_file("qemu").read_text(errors="replace").strip()
            raise LabError(f"QEMU of machine {node.name} ended: {log[-300:]}")
        try:
            with Qmp(node.qmp) as monitor:
                if monitor.ask("query-status")["status"] in ("inmigrate", "finish-migrate"):
                    return False
                monitor.ask("cont")
                return True
        except OSError:
            return False

    wait_for(f"the state of machine {node.name} to be loaded", loaded, _LOAD_S, 0.1)


def _become(lab: str, topology: Topology, node: MachineNode, secrets: Secrets) -> None:
    """Give the machine its names and keys."""
    hosts = wiring.hosts_file(topology.nodes.values())
    texts = identity.files(lab, node.spec, topology.ports(node.name), hosts)
    found: dict[str, tuple[bytes, int]] = {path: (text.encode(), 0o644) for path, text in texts.items()}
    found |= {
        "/etc/ssh/ssh_host_ed25519_key": (secrets.private(node.name), 0o600),
        "/etc/ssh/ssh_host_ed25519_key.pub": (secrets.public(node.name), 0o644),
        "/root/.ssh/id_ed25519": (secrets.private("root"), 0o600),
        "/root/.ssh/known_hosts": (secrets.known_hosts(topology), 0o644),
        "/root/.ssh/authorized_keys": (
            node.key.with_suffix(".pub").read_bytes() + secrets.public("root"), 0o600,
        ),
    }  # fmt: skip
    uuid = identity.host_uuid(lab, node.spec)
    node.feed(["sh", "-c", _IDENTITY, "identity", uuid], identity.archive(found))


def _plug(lab: str, topology: Topology, node: MachineNode) -> None:
    """The machine's interfaces, and its networks on them."""
    ports = topology.ports(node.name)
    mtus = _mtus(topology, node.name)
    with Qmp(node.qmp) as monitor:
        for number, port in enumerate(ports):
            mac = identity.interface_mac(lab, node.spec, port)
            monitor.ask("device_add", qemu.interface(number, mac, mtus[port]))

    def missing() -> set[str]:
        return set(ports) - set(node.run(["ls", "/sys/class/net"]).stdout.split())

    wait_for(
        f"the interfaces of machine {node.name} ({', '.join(ports)})", lambda: not missing(), _PLUG_S, 0.2
    )
    names = _auto(identity.interfaces(node.spec, ports).splitlines())
    if names:
        node.run(["sh", "-c", _NETWORK, "network", *names], timeout=_STEP_S)


def _auto(lines: Iterable[str]) -> list[str]:
    return [line.removeprefix("auto ") for line in lines if line.startswith("auto ")]


def _mtus(topology: Topology, node: str) -> Mapping[str, int]:
    return {end.port: link.mtu for link in topology.links for end in link.ends if end.node == node}
