"""docs/install.md, followed line by line on two fresh machines; then a migration each way, an update, and removal.

Somebody else makes the hosts: a and b, with bridge br0, addresses 10.0.0.1 and 10.0.0.2, and root's ssh key accepted from a to b.
VMNET_HOWTO_RUN is a program, called as `PROGRAM HOST COMMAND`: it runs the command as root in root's home folder on that host,
and ends with the command's exit code. VMNET_HOWTO_REPOSITORY is what `git clone` gets there.
With VMNET_HOWTO_VM=yes a VM vm1 runs on a, and is migrated.
"""

import os
from pathlib import Path

import howto
import pytest

PAGE = Path(__file__).parents[2] / "docs/install.md"
RUN = os.environ.get("VMNET_HOWTO_RUN", "")
COMMAND_S = 3000
pytestmark = [
    pytest.mark.skipif(not RUN, reason="VMNET_HOWTO_RUN names no program that reaches two fresh machines"),
    pytest.mark.timeout(4 * COMMAND_S),
]


def _run(host: str, command: str) -> tuple[int, str]:
    return howto.typed([RUN, host, command], COMMAND_S)


def test_the_page_is_followed_to_its_end() -> None:
    parts = ["update", "remove", *(["vm"] if os.environ.get("VMNET_HOWTO_VM") == "yes" else [])]
    repository = os.environ.get("VMNET_HOWTO_REPOSITORY", "/root/vmnet.git")
    page = list(howto.steps(PAGE.read_text(), ("a", "b")))
    howto.follow(page, _run, parts=parts, replace={"REPOSITORY": repository})
    for host in ("a", "b"):
        left = (
            "ls -d /opt/vmnet /etc/vmnet /var/lib/vmnet /etc/libvirt/hooks/qemu.d/50-vmnet /etc/pki/libvirt"
        )
        code, output = _run(host, f"{left} 2>/dev/null")
        assert code and not output.strip(), f"{host} still has {output.split()}"
