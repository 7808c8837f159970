"""A router's data plane in the kernel: data is forwarded by the namespace, control reaches the VM's tap, Dom0 answers ARP and ND."""

import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest
from dataplane_kit import Host, isolated, until
from router_host import CLIENT, LEFT, Lab
from scapy.all import ARP, ICMP, IP, TCP, UDP, Ether, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6, Raw  # type: ignore[attr-defined]

from dom0.dataplane import netdev, netns
from dom0.dataplane.gate_memory import Bounds
from dom0.dataplane.gate_program import Mode, Word
from dom0.router import namespace
from dom0.router.dataplane import DataPlane

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def ping(host: Host, target: str, *options: str) -> bool:
    with host:
        return os.system(f"busybox ping -c 2 -i 0.05 -W 1 {' '.join(options)} {target} > /dev/null") == 0


@isolated()
def test_data_is_forwarded_and_the_vm_sees_none_of_it() -> None:
    lab = Lab()
    assert ping(lab.client, "10.2.0.100")
    assert ping(lab.client, "fd02::100")
    seen = [one for mac in lab.taps for one in lab.to_vm(mac)]
    assert not [one for one in seen if one.haslayer(ICMP) or one.haslayer(Raw)], seen
    assert lab.plane.ports[LEFT].counts().passed > 4


@isolated()
def test_large_frames_pass() -> None:
    lab = Lab()
    assert ping(lab.client, "10.2.0.100", "-s", "1472")
    with lab.server:
        listener = socket.create_server(("10.2.0.100", 5000))
    with lab.client:
        talker = socket.create_connection(("10.2.0.100", 5000), 5)
    heard, _ = listener.accept()
    threading.Thread(target=talker.sendall, args=(bytes(1 << 20),), daemon=True).start()
    left = 1 << 20
    heard.settimeout(5)
    while left:
        left -= len(heard.recv(65536))


@isolated()
def test_the_hop_limit_is_answered_from_the_routers_own_address() -> None:
    lab = Lab()
    with lab.client:
        listener = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.settimeout(5)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    sender.sendto(b"x", ("10.2.0.100", 33434))
    said, (address, _) = listener.recvfrom(2000)
    assert (address, said[20]) == ("10.1.0.1", 11)


def control_frames() -> dict[str, Ether]:
    to_router = Ether(src=CLIENT, dst=LEFT.hex(":"))
    return {
        "ping of the router": to_router / IP(src="10.1.0.100", dst="10.1.0.1") / ICMP(),
        "its other address": to_router / IP(src="10.1.0.100", dst="10.2.0.1") / TCP(dport=179),
        "bgp over ipv6": to_router / IPv6(src="fd01::100", dst="fd01::1") / TCP(dport=179),
        "link-local": to_router / IPv6(src="fe80::1", dst="fe80::2") / UDP(dport=1),
        "ospf": Ether(src=CLIENT, dst="01:00:5e:00:00:05") / IP(dst="224.0.0.5", proto=89) / Raw(bytes(44)),
        "options": to_router / IP(src="10.1.0.100", dst="10.2.0.100", options=b"\x94\x04\x00\x00") / UDP(),
        "hop by hop": to_router / IPv6(src="fd01::100", dst="fd02::100", nh=0) / Raw(bytes(48)),
        "is-is": Ether(src=CLIENT, dst="01:80:c2:00:00:14", type=0x88B6) / Raw(bytes(60)),
        "gre, as configured": to_router / IP(src="10.1.0.100", dst="10.2.0.100", proto=47) / Raw(bytes(40)),
        "udp 5001, as configured": to_router
        / IP(src="10.1.0.100", dst="10.2.0.100")
        / UDP(dport=5001)
        / Raw(bytes(20)),
        "v6 prefix, as configured": to_router
        / IPv6(src="fd01::100", dst="fd09:1:2::5")
        / UDP(dport=1)
        / Raw(bytes(9)),
    }


@isolated()
def test_control_goes_to_the_vm_and_not_to_the_namespace() -> None:
    lab = Lab(rules=("gre", "udp 5000-5010", "to fd09:1::/32"))
    with lab.client:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        wire.bind(("eth0", 0))
    in_namespace = netns.call("vmnet-vr1", hears_all)
    for what, one in control_frames().items():
        raw = bytes(one)
        lab.taps[LEFT].drain()
        wire.send(raw)
        until(lambda: raw in lab.taps[LEFT].drain(), 5, what)  # noqa: B023
        assert raw not in heard(in_namespace), what
    others = Ether(src=CLIENT, dst=LEFT.hex(":")) / IP(src="10.1.0.100", dst="10.2.0.100") / UDP(dport=5011)
    data = bytes(others / Raw(bytes(20)))
    wire.send(data)
    until(lambda: data in heard(in_namespace), 5, "data")
    assert data not in lab.taps[LEFT].drain()


def hears_all() -> socket.socket:
    """What comes in at the router's first interface."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    found.bind(("eth0", 3))
    found.setblocking(False)
    return found


def heard(wire: socket.socket) -> list[bytes]:
    """Since the last call. Other frames come as well: a client's kernel looks for duplicates of its addresses when it likes."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(wire.recv(2000))
    return found


@isolated()
def test_dom0_answers_for_the_routers_addresses_and_the_vm_hears_what_it_must() -> None:
    lab = Lab()
    with lab.client:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        wire.bind(("eth0", 3))
        wire.settimeout(5)
    who = ARP(op=1, hwsrc=CLIENT, psrc="10.1.0.100", pdst="10.1.0.1")
    wire.send(bytes(Ether(src=CLIENT, dst="ff:ff:ff:ff:ff:ff") / who))
    answer = next(one for one in frames(wire) if one.haslayer(ARP) and one[ARP].op == 2)
    assert (answer[ARP].psrc, answer[ARP].hwsrc) == ("10.1.0.1", LEFT.hex(":"))
    solicitation = (
        IPv6(src="fd01::100", dst="ff02::1:ff00:1")
        / ICMPv6ND_NS(tgt="fd01::1")
        / ICMPv6NDOptSrcLLAddr(lladdr=CLIENT)
    )
    wire.send(bytes(Ether(src=CLIENT, dst="33:33:ff:00:00:01") / solicitation))
    assert any(one.haslayer("ICMPv6ND_NA") for one in frames(wire))
    heard = lab.to_vm()
    assert not [one for one in heard if one.haslayer(ARP) and one[ARP].pdst == "10.1.0.1"]
    assert not [one for one in heard if one.haslayer(ICMPv6ND_NS) and one[ICMPv6ND_NS].tgt == "fd01::1"]
    gratuitous = ARP(op=1, hwsrc=CLIENT, psrc="10.1.0.100", pdst="10.1.0.100")
    reply = ARP(op=2, hwsrc=CLIENT, psrc="10.1.0.100", hwdst=LEFT.hex(":"), pdst="10.1.0.1")
    for one in (gratuitous, reply):
        wire.send(bytes(Ether(src=CLIENT, dst=LEFT.hex(":")) / one))
        until(lambda: lab.taps[LEFT].drain(), 5, "ARP for both")


def frames(wire: socket.socket) -> "list[Ether]":
    """What has arrived, at least one answer, at most until nothing comes for 0.2 s."""
    found: list[Ether] = []
    wire.settimeout(5)
    while True:
        try:
            found.append(Ether(wire.recv(2000)))
        except TimeoutError:
            return found
        wire.settimeout(0.2)


@isolated()
def test_what_the_vm_sends_comes_out_of_its_port() -> None:
    lab = Lab()
    with lab.client:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        wire.bind(("eth0", 3))
    hello = bytes(
        Ether(src=LEFT.hex(":"), dst="01:00:5e:00:00:05") / IP(dst="224.0.0.5", proto=89) / Raw(bytes(44))
    )
    lab.taps[LEFT].write(hello)
    assert hello in [bytes(one) for one in frames(wire)]
    lab.plane.ports[LEFT].talk = False
    lab.taps[LEFT].write(hello)
    until(lambda: lab.plane.ports[LEFT].get(Word.MUTED), 5, "silence")
    assert hello not in [bytes(one) for one in frames(wire)]


@isolated()
def test_the_namespace_does_not_say_again_which_groups_it_listens_to() -> None:
    """The kernel draws lots over this time for when it does; on a busy host nobody can tell that from the first, late report."""
    lab = Lab()
    names = [one.name for one in lab.plane.layout.data.values()]

    def waits_s() -> set[float]:
        folder = Path("/proc/sys/net/ipv6/conf")
        files = [
            folder / name / f"mldv{version}_unsolicited_report_interval"
            for name in names
            for version in (1, 2)
        ]
        return {int(one.read_text()) / 1000 for one in files}

    assert min(netns.call("vmnet-vr1", waits_s)) > 7 * 86_400


@isolated()
def test_slow_sends_everything_to_the_vm_and_a_daemon_that_starts_again_takes_over() -> None:
    lab = Lab()
    assert ping(lab.client, "10.2.0.100")
    lab.plane.set_mode(Mode.SLOW)
    assert not ping(lab.client, "10.2.0.100")
    assert any(one.haslayer(ICMP) for one in lab.to_vm())
    again = DataPlane(lab.plane.layout, [], Bounds(1000, 1 << 20))
    lab.plane.close()
    again.make(Mode.PASS, talk=True)
    assert ping(lab.client, "10.2.0.100")
    again.remove()
    assert netns.names("vmnet-") == []
    assert not [name for name in netdev.all_names() if name.startswith("vmr")]


@isolated()
def test_interfaces_have_the_vms_indexes() -> None:
    Lab()
    assert namespace.interfaces("vmnet-vr1") == {"lo": 1, "eth0": 2, "eth1": 3}
