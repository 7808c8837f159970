"""The probe of `vmnet doctor` through a real tunnel: what arrives, what a firewall or a small MTU on the way keeps back."""

import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from dataplane_kit import Host, ip, isolated, veth

from dom0.reach import tunnel_probe
from dom0.reach.tunnel_probe import FRAME_BYTES

pytestmark = pytest.mark.root
A, B = "192.0.2.1", "192.0.2.2"
VNI = 0x123456


def _pair(mtu: int = 1600) -> tuple[Host, Host]:
    """Two hosts on one link."""
    a, b = Host(), Host()
    veth(a, "under", b, "under")
    for host, address in ((a, A), (b, B)):
        with host:
            ip("link", "set", "under", "mtu", mtu)
            ip("addr", "add", f"{address}/24", "dev", "under")
    return a, b


def _probe(a: Host, b: Host) -> int:
    """The largest frame from a that arrives at b; both hosts have the devices they had before."""
    before = a.devices(), b.devices()
    done = threading.Event()

    def send() -> None:
        with a:
            tunnel_probe._send(VNI, A, B, done)

    def listen() -> int:
        with b:
            return tunnel_probe._listen(VNI, B, A)

    with ThreadPoolExecutor(2) as pool:
        sender, listener = pool.submit(send), pool.submit(listen)
        try:
            largest = listener.result(30)
        finally:
            done.set()
        sender.result(30)
    assert (a.devices(), b.devices()) == before
    return largest


def _filter(host: Host, kind: str, *rules: str) -> None:
    """The host has one chain with these rules, and none of earlier calls."""
    chain = "\n".join([f"type filter hook {kind}", *rules])
    with host:
        text = f"flush ruleset\ntable {'netdev' if 'device' in kind else 'inet'} t {{\nchain c {{\n{chain}\n}}\n}}\n"
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


@isolated()
def test_full_size_frames_arrive() -> None:
    assert _probe(*_pair()) == FRAME_BYTES


@isolated()
def test_a_firewall_that_drops_the_tunnel_is_seen() -> None:
    a, b = _pair()
    drop = "input priority 0; policy drop;"
    _filter(b, drop, "tcp dport 6642 accept")
    assert _probe(a, b) == 0
    _filter(b, drop, f"ip saddr {A} udp dport 6643 accept")
    assert _probe(a, b) == FRAME_BYTES


@isolated()
def test_a_smaller_mtu_on_the_way_keeps_only_large_frames_back() -> None:
    a, b = _pair()
    _filter(
        a, "egress device under priority 0; policy accept;", "meta length > 1500 drop"
    )  # as a switch does
    assert 0 < _probe(a, b) < FRAME_BYTES


@isolated()
def test_fragments_count_as_whole_frames() -> None:
    assert _probe(*_pair(mtu=1500)) == FRAME_BYTES


@isolated()
def test_a_port_that_another_program_uses_is_an_error_and_leaves_nothing() -> None:
    _a, b = _pair()
    before = b.devices()
    with b, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 6643))
        with pytest.raises(OSError) as caught:
            tunnel_probe._listen(VNI, B, A)
    assert tunnel_probe._why(caught.value) == "another program uses UDP 6643"
    assert b.devices() == before
