"""Machines of a lab: from a state that all share to hosts of their own, then the steps of the install how-to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vmnet.errors import LabError
from vmnet.lab import accel, image, wiring
from vmnet.lab.command import run
from vmnet.lab.machines import clock, howto, identity, qemu, tree, warm
from vmnet.lab.machines.host import MachineHost
from vmnet.lab.machines.image import Tell
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
        for name in ("root", *(host.name for host in topology.hosts)):
            file = str(self.folder / f"{name}.ssh")
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file])

    def private(self, name: str) -> bytes:
        return (self.folder / f"{name}.ssh").read_bytes()

    def public(self, name: str) -> bytes:
        return (self.folder / f"{name}.ssh.pub").read_bytes()

    def known_hosts(self, topology: Topology) -> bytes:
        lines = (f"{h.underlay},{h.name} {self.public(h.name).decode().strip()}\n" for h in topology.hosts)
        return "".join(lines).encode()


def bring_up(lab: str, topology: Topology, hosts: Sequence[MachineHost], tell: Tell) -> None:
    """All machines, side by side. Raises LabError when one does not come up."""
    if not hosts:
        return
    chosen = accel.choose(image.ensure("small"))
    kept = {host.name: warm.ensure(_machine(host), chosen, tell) for host in hosts}
    secrets = Secrets(hosts[0].paths.var / "machines")
    secrets.make(topology)
    archive = secrets.folder / "vmnet.tar"
    tree.pack(archive)
    for host in hosts:
        uuid = identity.host_uuid(lab, host.spec)
        warm.start(host, _machine(host), kept[host.name], uuid, topology.ports(host.name))
    with ThreadPoolExecutor(len(hosts)) as pool:
        works = [pool.submit(_set_up, lab, topology, host, secrets, archive, tell) for host in hosts]
        for work in works:
            work.result()


def _machine(host: MachineHost) -> Machine:
    if host.spec.machine is None:
        raise LabError(f"{host.name} is no machine")
    return host.spec.machine


def _set_up(
    lab: str, topology: Topology, host: MachineHost, secrets: Secrets, archive: Path, tell: Tell
) -> None:
    begin = time.monotonic()
    _resume(host)
    host.connect()
    clock.set_clock(host)  # it stood still while the state was kept
    tell(f"machine {host.name} answers after {time.monotonic() - begin:.0f} s")
    _become(lab, topology, host, secrets)
    _plug(lab, topology, host)
    tell(f"machine {host.name} is on its networks after {time.monotonic() - begin:.0f} s")
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
    if host.runs_daemon:
        host.wait_daemon()
        tell(f"the daemon is up on {host.name} after {time.monotonic() - begin:.0f} s")


def _resume(host: MachineHost) -> None:
    """Let the machine go on where its state was kept. Raises LabError when QEMU ended instead."""

    def loaded() -> bool:
        if host.service("qemu") is None:
            log = host.log_file("qemu").read_text(errors="replace").strip()
            raise LabError(f"QEMU of machine {host.name} ended: {log[-300:]}")
        try:
            with Qmp(host.qmp) as monitor:
                if monitor.ask("query-status")["status"] in ("inmigrate", "finish-migrate"):
                    return False
                monitor.ask("cont")
                return True
        except OSError:
            return False

    wait_for(f"the state of machine {host.name} to be loaded", loaded, _LOAD_S, 0.1)


def _become(lab: str, topology: Topology, host: MachineHost, secrets: Secrets) -> None:
    """Give the machine its names and keys."""
    hosts = wiring.hosts_file(topology.nodes.values())
    texts = identity.files(lab, host.spec, topology.ports(host.name), hosts)
    found: dict[str, tuple[bytes, int]] = {path: (text.encode(), 0o644) for path, text in texts.items()}
    found |= {
        "/etc/ssh/ssh_host_ed25519_key": (secrets.private(host.name), 0o600),
        "/etc/ssh/ssh_host_ed25519_key.pub": (secrets.public(host.name), 0o644),
        "/root/.ssh/id_ed25519": (secrets.private("root"), 0o600),
        "/root/.ssh/known_hosts": (secrets.known_hosts(topology), 0o644),
        "/root/.ssh/authorized_keys": (
            host.key.with_suffix(".pub").read_bytes() + secrets.public("root"), 0o600,
        ),
    }  # fmt: skip
    uuid = identity.host_uuid(lab, host.spec)
    host.feed(["sh", "-c", _IDENTITY, "identity", uuid], identity.archive(found))


def _plug(lab: str, topology: Topology, host: MachineHost) -> None:
    """The machine's interfaces, and its networks on them."""
    ports = topology.ports(host.name)
    mtus = _mtus(topology, host.name)
    with Qmp(host.qmp) as monitor:
        for number, port in enumerate(ports):
            mac = identity.interface_mac(lab, host.spec, port)
            monitor.ask("device_add", qemu.interface(number, mac, mtus[port]))

    def missing() -> set[str]:
        return set(ports) - set(host.run(["ls", "/sys/class/net"]).stdout.split())

    wait_for(
        f"the interfaces of machine {host.name} ({', '.join(ports)})", lambda: not missing(), _PLUG_S, 0.2
    )
    names = _auto(identity.interfaces(host.spec, ports).splitlines())
    if names:
        host.run(["sh", "-c", _NETWORK, "network", *names], timeout=_STEP_S)


def _auto(lines: Iterable[str]) -> list[str]:
    return [line.removeprefix("auto ") for line in lines if line.startswith("auto ")]


def _mtus(topology: Topology, node: str) -> Mapping[str, int]:
    return {end.port: link.mtu for link in topology.links for end in link.ends if end.node == node}
