"""What the machines say of themselves when a migration went wrong: printed before they are destroyed."""

from __future__ import annotations

import migrations
from machines import NAMES, Machines

from vmnet.errors import LabError

_HOST = (
    "virsh list --all",
    "vmnet status",
    "journalctl --no-pager -o short-precise -n 80 -u vmnet-dom0d",
    "journalctl --no-pager -o short-precise -n 30 -u libvirtd",
    "ip -s link",
    "bridge fdb show br br0",
    f"tail -n 30 /var/log/libvirt/qemu/{migrations.VM_NAME}.console",
)
_EVERY = (
    "dmesg --level=emerg,alert,crit,err,warn | tail -n 20",
    "ip neigh",
    f"ping -c 2 -W 2 {migrations.ADDRESS}",
    "ping -c 2 -W 2 10.0.0.1",
    "ping -c 2 -W 2 10.0.0.2",
)


def show(machines: Machines) -> None:
    """As much as can be had; nothing of it is an error."""
    for name in NAMES:
        for line in (*(_HOST if name in migrations.HOSTS else ("ip -s link",)), *_EVERY):
            print(f"== on {name}: {line}", flush=True)
            try:
                done = machines.shell(name, f"{line} 2>&1", check=False)
            except LabError as error:
                print(f"nothing: {error}", flush=True)
            else:
                print(done.stdout, flush=True)
