"""What else runs on a host sees vmnet's devices: its frames are not taken for the guest's, and the host's own connections stay."""

import os
from pathlib import Path

import pytest
from dataplane_kit import GUEST, Host, ip, isolated, quiet, until, veth

from dom0.dataplane import tunnel
from dom0.dataplane.listener import Listener, source_filter
from dom0.dataplane.park import NO_OFFLOAD, Park
from dom0.dataplane.sender import Sender

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
VNI = 7
PORT_MAC = "f0:00:00:00:00:01"


def address(device: str) -> bytes:
    return bytes.fromhex(Path(f"/sys/class/net/{device}/address").read_text().strip().replace(":", ""))


@isolated()
def test_a_bridge_keeps_the_address_that_it_has_from_its_port() -> None:
    """ifupdown gives it none, and it takes the lowest one: the host's neighbours know the host by it."""
    with Host():
        ip("link", "add", "uplink", "address", PORT_MAC, "type", "veth", "peer", "name", "switch")
        ip("link", "add", "br0", "type", "bridge")
        ip("link", "set", "uplink", "master", "br0")
        quiet("br0")
        before = address("br0")
        assert before.hex(":") == PORT_MAC
        for number in range(20):
            park = Park("vmp000001", 16, 1500, gated=False)
            tunnel.create("vmt000001", VNI, "192.0.2.1", "192.0.2.2", 1500)
            for device in ("vmp000001", "vmt000001"):
                ip("link", "set", device, "master", "br0")
            assert address("br0") == before, number
            park.close()
            tunnel.delete("vmt000001")


@isolated()
def test_what_a_host_sends_by_a_tunnels_device_does_not_come_out_of_it() -> None:
    a, b = Host(), Host()
    veth(a, "up0", b, "up0")
    for host, here, there in ((a, "192.0.2.1", "192.0.2.2"), (b, "192.0.2.2", "192.0.2.1")):
        with host:
            ip("addr", "add", f"{here}/24", "dev", "up0")
            tunnel.create("vmt000001", VNI, here, there, 1500)
    with b:
        heard = Listener("vmt000001", source_filter(GUEST))
        before = int(Path("/sys/class/net/vmt000001/statistics/rx_packets").read_text())
    with a:
        own = address("vmt000001")
        sender = Sender("vmt000001")
        sender.send(NO_OFFLOAD + b"\xff" * 6 + own + b"\x08\x00" + bytes(46))  # as a DHCP client does
        sender.send(NO_OFFLOAD + b"\xff" * 6 + GUEST + b"\x08\x00" + bytes(46))
    with b:
        until(lambda: heard.drain(), 5, "the guest's frame comes")
        after = int(Path("/sys/class/net/vmt000001/statistics/rx_packets").read_text())
        assert address("vmt000001") == own and after - before == 1
    heard.close()
    sender.close()
