"""The fabric hears the VM's multicast reports at its new host, as it has sent them at the old one.

A Linux guest that takes part in QEMU's announcement reports its groups itself as well, so this one takes no part (libvirt's
``qemu:override``): it does not learn that it has moved.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kit
import pytest

from vmnet.lab import Lab, lab_up

pytestmark = kit.LAB
_GROUP = bytes.fromhex("ff0200000000000000000001ff000010")
"""That of the VM's own IPv6 address (RFC 4291, section 2.7.1): who is no member of it is not found by new neighbours."""
_UNAWARE = """<qemu:override xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:device alias='net0'><qemu:frontend>
<qemu:property name='guest_announce' type='bool' value='false'/></qemu:frontend></qemu:device></qemu:override></domain>"""
_LISTEN = """
import sys, time
from dom0.dataplane.group_reports import report_filter
from dom0.dataplane.listener import Listener
listener = Listener(sys.argv[1], report_filter(bytes.fromhex("525400000001")))
print("listening", flush=True)
while True:
    for frame in listener.drain():
        print(frame.hex(), flush=True)
    time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def quiet() -> Iterator[Lab]:
    """Nobody there asks for memberships."""
    with lab_up(str(Path(__file__).with_name("shell.yaml")), "labgroups") as lab:
        kit.start_anew(lab, "</domain>", _UNAWARE)
        yield lab


@contextmanager
def heard(lab: Lab, port: str) -> Iterator[list[bytes]]:
    """The VM's reports that come in at a port of the fabric's switch while the block runs."""
    command = [sys.executable, "-u", "-c", _LISTEN, port]
    listener = lab.node("core").popen(command, stdout=subprocess.PIPE, text=True)
    assert listener.stdout is not None
    assert listener.stdout.readline() == "listening\n"
    frames: list[bytes] = []
    try:
        yield frames
    finally:
        listener.terminate()
        out, _ = listener.communicate(timeout=10)
        frames += map(bytes.fromhex, out.split())


@pytest.mark.parametrize("migrate", [kit.migrate, kit.virsh_migrate], ids=["vmnet", "virsh"])
def test_its_groups_are_reported_at_its_new_host(quiet: Lab, migrate: Any) -> None:
    target = kit.other(quiet, kit.where(quiet))
    with heard(quiet, target.name) as frames:
        done = migrate(quiet)
        assert done.returncode == 0, done.stderr
        kit.settled(quiet)
    assert any(_GROUP in frame for frame in frames), [one.hex() for one in frames]
