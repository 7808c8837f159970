"""What reaches UDP 6643 from a host that is no peer stays out of the tunnel: real VXLAN, real nftables."""

import asyncio
import logging
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dataplane_kit import BROADCAST, ETHERTYPE, GUEST, Host, ip, isolated, veth

from dom0.dataplane import names, tunnel
from dom0.tunnel_filter import TABLE, TunnelFilter
from vmnet.config import parse

pytestmark = pytest.mark.root
A, B, GUEST_NET, VNI = "192.0.2.1", "192.0.2.2", "10.9.0", 0xABCDEF
A6, B6 = "2001:db8::1", "2001:db8::2"
TUNNEL = names.tunnel_name(VNI)
LARGE = b"large".ljust(1500, b".")


class Stage:
    """Host b, its peer a, and a VM that reaches an address of b by a bridge."""

    def __init__(self, local: str = B, remote: str = A) -> None:
        self.a, self.b, self.vm = Host(), Host(), Host()
        veth(self.a, "under", self.b, "under")
        veth(self.vm, "eth0", self.b, "tap0")
        self._address(self.a, "under", f"{A}/24", f"{A6}/64")
        self._address(self.vm, "eth0", f"{GUEST_NET}.2/24", "2001:db8:9::2/64")
        with self.b:
            ip("link", "add", "br0", "type", "bridge")
            ip("link", "set", "tap0", "master", "br0")
            ip("link", "set", "br0", "up")
            tunnel.create(TUNNEL, VNI, local, remote, 1500)
            self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x88B6)
            self._packets.bind((TUNNEL, 0x88B6))
            self._packets.settimeout(5)
        self._address(self.b, "under", f"{B}/24", f"{B6}/64")
        self._address(self.b, "br0", f"{GUEST_NET}.1/24", "2001:db8:9::1/64")
        with self.vm:
            ip("route", "add", "default", "via", f"{GUEST_NET}.1")

    @staticmethod
    def _address(host: Host, device: str, four: str, six: str) -> None:
        with host:
            Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("0")
            ip("addr", "add", four, "dev", device)
            ip("addr", "add", six, "dev", device, "nodad")

    def send(self, host: Host, to: str, *payloads: bytes) -> None:
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        with host, socket.socket(family, socket.SOCK_DGRAM) as wire:
            for one in payloads:
                header = struct.pack("!II", 0x08000000, VNI << 8)
                wire.sendto(header + BROADCAST + GUEST + ETHERTYPE + one, (to, tunnel.UDP_PORT))

    def came_out(self, last: bytes) -> list[bytes]:
        """What came out of the tunnel, up to ``last``. TimeoutError if that one does not."""
        seen: list[bytes] = []
        while last not in seen:
            seen.append(self._packets.recv(4096)[14 : 14 + max(len(last), 5)])
        return seen

    def at_b(self, make: Callable[[TunnelFilter], Any], config: str = "") -> Any:
        text = f"[tls]\nplain = true\n[peers.a]\naddress = '{A}'\ntunnel_address = '{A6}'\n{config}"
        with self.b:
            return asyncio.run(make(TunnelFilter(parse(text, "test"))))


def nft(host: Host, *words: str) -> str:
    with host:
        return subprocess.run(["nft", *words], check=True, capture_output=True, text=True).stdout


@isolated()
def test_a_vm_reaches_the_tunnel_without_the_filter_and_not_with_it() -> None:
    stage = Stage()
    stage.send(stage.vm, f"{GUEST_NET}.1", b"forge")
    assert stage.came_out(b"forge") == [b"forge"]  # so the case is real on this kernel
    stage.at_b(TunnelFilter.install)
    for to in (f"{GUEST_NET}.1", B, "2001:db8:9::1"):
        stage.send(stage.vm, to, b"forge", b"forge")
    stage.send(stage.a, B, LARGE, b"peer4")  # the large one comes in fragments
    assert stage.came_out(b"peer4") == [LARGE[:5], b"peer4"]
    assert stage.at_b(TunnelFilter.look).dropped_packets == 6


@isolated()
def test_a_peer_is_known_by_its_tunnels_address_too() -> None:
    stage = Stage(B6, A6)
    stage.at_b(TunnelFilter.install)
    stage.send(stage.vm, "2001:db8:9::1", b"forge")
    stage.send(stage.a, B6, b"peer6")
    assert stage.came_out(b"peer6") == [b"peer6"]


@isolated()
def test_where_the_end_is_configured_no_other_address_takes_frames() -> None:
    stage = Stage()
    stage.at_b(TunnelFilter.install, f"[listen]\ntunnel_address = '{B}'\n")
    with stage.a:
        ip("route", "add", f"{GUEST_NET}.0/24", "via", B)
    stage.send(stage.a, f"{GUEST_NET}.1", b"other")
    stage.send(stage.a, B, b"right")
    assert stage.came_out(b"right") == [b"right"]


@isolated()
def test_a_tunnel_that_is_there_keeps_its_host() -> None:
    """A stretched VM's tunnel, after its host was taken out of the configuration."""
    stage = Stage(B, "192.0.2.9")
    with stage.a:
        ip("addr", "add", "192.0.2.9/24", "dev", "under")
    stage.at_b(TunnelFilter.install)
    rules = nft(stage.b, "list", "table", "inet", TABLE)
    assert f"saddr 192.0.2.9 ip daddr {B} return" in rules and f"saddr {A} return" in rules


@isolated()
def test_a_tunnel_that_is_there_keeps_its_end_here() -> None:
    """A stretched VM's tunnel, after `listen.tunnel_address` was changed."""
    stage = Stage()
    stage.at_b(TunnelFilter.install, "[listen]\ntunnel_address = '192.0.2.7'\n")
    with stage.a:
        ip("route", "add", f"{GUEST_NET}.0/24", "via", B)
    stage.send(stage.a, f"{GUEST_NET}.1", b"other")
    stage.send(stage.a, B, b"right")
    assert stage.came_out(b"right") == [b"right"]


@isolated()
def test_a_flushed_table_is_noticed_and_put_in_again(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.at_b(TunnelFilter.install)
    stage.at_b(TunnelFilter.ensure)
    assert not caplog.records
    for words in (
        ("flush", "ruleset"),
        ("flush", "table", "inet", TABLE),
        ("flush", "chain", "inet", TABLE, "peers"),
    ):
        nft(stage.b, *words)
        assert stage.at_b(TunnelFilter.look).reason
        with caplog.at_level(logging.WARNING):
            stage.at_b(TunnelFilter.ensure)
        assert "put in again" in caplog.text
        caplog.clear()
        assert not stage.at_b(TunnelFilter.look).reason
    stage.send(stage.vm, f"{GUEST_NET}.1", b"forge")
    stage.send(stage.a, B, b"peer4")
    assert stage.came_out(b"peer4") == [b"peer4"]


@isolated()
def test_other_tables_are_left_alone_and_off_means_off(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    nft(stage.b, "add table inet filter")
    stage.at_b(TunnelFilter.install, "[listen]\ntunnel_filter = false\n")
    stage.at_b(TunnelFilter.ensure, "[listen]\ntunnel_filter = false\n")
    assert nft(stage.b, "list", "tables").split() == ["table", "inet", "filter"]
    stage.at_b(TunnelFilter.install)
    assert sorted(nft(stage.b, "list", "tables").split()[2::3]) == ["filter", TABLE]


@isolated()
def test_without_nft_it_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    with monkeypatch.context() as without:
        without.setenv("PATH", "/nowhere")
        with caplog.at_level(logging.WARNING):
            stage.at_b(TunnelFilter.install)
        assert "install the package nftables" in caplog.text
        assert "install the package nftables" in stage.at_b(TunnelFilter.look).reason
