"""How OVN's users migrate a VM without vmnet: ``python -m vmnet.bench.ovn_migrate VM CHASSIS ADDRESS``, on the source host.

As Neutron's ML2/OVN driver does it for Nova: the VM's ports are on both chassis before the migration, and on the new one after it
(ovn-nb(5): ``requested-chassis``, ``activation-strategy``). OVN opens the new one when QEMU announces the guest there by RARP.
libvirt is told what it always is. A host and its chassis have one name; the host's Open vSwitch knows the northbound database
(``ovn-nb``).
"""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from vmnet.errors import LabError

_LIMIT_S = 15
_MIGRATE_S = 120
_PORT = "devices/interface/virtualport[@type='openvswitch']/parameters"


def ports(domain: str) -> list[str]:
    """The logical ports of a VM, from its XML: ``interfaceid``."""
    found = [one.get("interfaceid", "") for one in ET.fromstring(domain).iterfind(_PORT)]
    return [one for one in found if one]


def on_both(names: Iterable[str], here: str, there: str) -> list[str]:
    """Words of one transaction of ovn-nbctl(8)."""
    words: list[str] = []
    for name in names:
        words += ["--", "set", "Logical_Switch_Port", name]
        words += [f'options:requested-chassis="{here},{there}"', "options:activation-strategy=rarp"]
    return words[1:]


def on_one(names: Iterable[str], chassis: str) -> list[str]:
    """Words of one transaction of ovn-nbctl(8)."""
    words: list[str] = []
    for name in names:
        words += ["--", "set", "Logical_Switch_Port", name, f"options:requested-chassis={chassis}"]
        words += ["--", "remove", "Logical_Switch_Port", name, "options", "activation-strategy"]
    return words[1:]


def _run(argv: Sequence[str], limit_s: float = _LIMIT_S) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=limit_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{argv[0]}: {error}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"code {done.returncode}"]
        raise LabError(f"{argv[0]}: {said[-1]}")
    return done.stdout


def _about_ourselves(key: str) -> str:
    return (
        _run(["ovs-vsctl", "--timeout=10", "get", "Open_vSwitch", ".", f"external_ids:{key}"])
        .strip()
        .strip('"')
    )


def migrate(vm: str, there: str, address: str) -> None:
    """Raises LabError; the ports are then at this host alone again, as the VM is."""
    here, database = _about_ourselves("system-id"), _about_ourselves("ovn-nb")
    names = ports(_run(["virsh", "-c", "qemu:///system", "dumpxml", vm]))
    if not names:
        raise LabError(f"{vm} has no port of OVN")
    nbctl = ["ovn-nbctl", "--timeout=10", f"--db={database}"]
    target = [f"qemu+tcp://{address}/system", f"tcp://{address}"]
    _run([*nbctl, "--wait=hv", *on_both(names, here, there)])
    try:
        _run(["virsh", "-c", "qemu:///system", "migrate", "--live", vm, *target], _MIGRATE_S)
    except LabError:
        _run([*nbctl, *on_one(names, here)])
        raise
    _run([*nbctl, *on_one(names, there)])


def main(words: Sequence[str]) -> int:
    if len(words) != 3:
        print("usage: python -m vmnet.bench.ovn_migrate VM CHASSIS ADDRESS", file=sys.stderr)
        return 2
    try:
        migrate(*words)
    except LabError as error:
        print(f"ovn_migrate: {error}", file=sys.stderr)
        return int(error.code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
