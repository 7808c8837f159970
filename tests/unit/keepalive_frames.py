"""Keepalives as an independent encoder (scapy) makes them."""

from __future__ import annotations

from typing import Any

from scapy.contrib.bfd import BFD
from scapy.contrib.ospf import OSPF_Hdr, OSPF_Hello, OSPFv3_Hdr, OSPFv3_Hello
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vrrp import VRRP, VRRPv3

VM = bytes.fromhex("525400000001")
PEER = bytes.fromhex("525400000002")


def mac(raw: bytes) -> str:
    return raw.hex(":")


def ip(version: int = 4, back: bool = False, ttl: int = 255, destination: str = "") -> Any:
    """From the VM to its neighbour, or ``back``."""
    ends = ("192.0.2.1", "192.0.2.2") if version == 4 else ("fe80::1", "fe80::2")
    source, there = reversed(ends) if back else ends
    there = destination or there
    return IP(src=source, dst=there, ttl=ttl) if version == 4 else IPv6(src=source, dst=there, hlim=ttl)


def ether(back: bool = False) -> Any:
    return Ether(src=mac(PEER), dst=mac(VM)) if back else Ether(src=mac(VM), dst=mac(PEER))


def bfd(
    family: int = 4, back: bool = False, port: int = 3784, ttl: int = 255, udp: Any = None, **fields: Any
) -> bytes:
    """A control packet in state Up, 100 ms x 3; fields as scapy names them, over what is usual."""
    usual = {
        "version": 1,
        "sta": 3,
        "flags": 0,
        "detect_mult": 3,
        "my_discriminator": 22 if back else 11,
        "your_discriminator": 11 if back else 22,
        "min_tx_interval": 100_000,
        "min_rx_interval": 100_000,
        "echo_rx_interval": 50_000,
    }
    header = UDP(sport=49152, dport=port, **(udp or {}))
    return bytes(ether(back) / ip(family, back, ttl) / header / BFD(**usual | fields))


def vrrp(version: int = 3, vrid: int = 7, priority: int = 200, interval: int = 100, **fields: Any) -> bytes:
    """``interval``: 10 ms units in version 3, seconds in version 2."""
    base = ether() / ip(destination="224.0.0.18")
    if version == 2:
        return bytes(
            base / VRRP(vrid=vrid, priority=priority, adv=interval, addrlist=["192.0.2.9"], **fields)
        )
    return bytes(base / VRRPv3(vrid=vrid, priority=priority, adv=interval, addrlist=["192.0.2.9"], **fields))


def ospf(version: int = 2, interval: int = 1, dead: int = 4, alone: bool = False, **header: Any) -> bytes:
    """A hello to all routers, which names one neighbour, or none if ``alone``; intervals in s."""
    neighbours = [] if alone else ["192.0.2.2"]
    if version == 2:
        hello = OSPF_Hello(hellointerval=interval, deadinterval=dead, neighbors=neighbours)
        return bytes(
            ether() / ip(ttl=1, destination="224.0.0.5") / OSPF_Hdr(src="192.0.2.1", **header) / hello
        )
    hello = OSPFv3_Hello(hellointerval=interval, deadinterval=dead, neighbors=neighbours)
    base = ether() / ip(6, ttl=1, destination="ff02::5")
    return bytes(base / OSPFv3_Hdr(src="192.0.2.1", **header) / hello)
