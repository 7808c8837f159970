"""Frames in which a VM, or a client, says what is not so; and what the controller makes of them."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from controller_bridge.address import Address
from controller_bridge.api.client import ControllerClient, Way
from controller_bridge.core import lldp, neighbours
from controller_bridge.core.answers import GATEWAY_MAC
from controller_bridge.core.lldp import Origin
from vmnet.lab import Lab, ways
from vmnet.lab.wait import wait_for

EVERYBODY = ip_address("ff02::1")
_ALL_NODES = bytes.fromhex("333300000001")
_API = Address("tcp", "10.0.0.100", 6654)


@dataclass(frozen=True)
class Lies:
    """``refused``: how many of ``frames`` the controller is to count as refused, and how many as ``forged`` LLDP."""

    frames: list[bytes]
    refused: int
    forged: int


def of_vm(lab: Lab) -> Lies:
    """As from inside the VM: that it is c2 by its addresses, the gateway by address and by MAC address, and a switch."""
    found = ways.stations(lab)
    vm, c2 = found["vm1"].mac, found["c2"]
    frames = [
        *(_claims(str(one.ip), vm) for one in c2.addresses),
        *(_claims(gateway, vm) for gateway in ("10.1.0.254", "fd01::fe")),
        _claims("10.1.0.66", GATEWAY_MAC),
    ]
    return Lies([*frames, *_lldp(lab)], len(frames), len(_lldp(lab)))


def of_client(lab: Lab) -> Lies:
    """As from a client: that the VM's MAC address, and its addresses, are here."""
    vm = ways.stations(lab)["vm1"]
    frames = [_claims(str(one.ip), vm.mac) for one in vm.addresses]
    return Lies(
        [*frames, b"\xff" * 6 + vm.mac + b"\x88\xb5" + bytes(46), *_lldp(lab)],
        len(frames) + 1,
        len(_lldp(lab)),
    )


def theft(lab: Lab) -> bytes:
    """That c2 is where this is sent: it is asked, and contradicts."""
    c2 = ways.stations(lab)["c2"]
    return _claims(str(c2.address(4).ip), c2.mac)


def _claims(address: str, mac: bytes) -> bytes:
    """A gratuitous ARP, or an unsolicited neighbour advertisement."""
    own = ip_address(address)
    return (
        neighbours.question(own, mac, own)
        if own.version == 4
        else neighbours.answer(own, mac, _ALL_NODES, EVERYBODY)
    )


def _lldp(lab: Lab) -> list[bytes]:
    """From switch s1's first port: signed with another key, and not at all."""
    datapath = int(lab.topology.nodes["s1"].bridges[0].datapath, 16)
    signed = lldp.frame(Origin(datapath, 1), b"another key, of the right length", time.time())
    plain = (
        lldp.GROUP
        + signed[6:12]
        + b"\x88\xcc"
        + bytes.fromhex("0207040000000000010402073106020078")
        + bytes(2)
    )
    return [signed, plain.ljust(60, b"\0")]


def say(lab: Lab, node: str, port: str, frames: list[bytes]) -> None:
    """Out of a node's interface, towards its switch."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((port, 0))
            for frame in frames:
                out.send(frame)

    lab.node(node).call(send)


def status(lab: Lab) -> dict[str, Any]:
    """The controller's."""

    async def ask() -> dict[str, Any]:
        client = ControllerClient(Way(_API, None, "controller", "h1"))
        try:
            return await client.ask("status", {}, 10.0)
        finally:
            await client.close()

    return lab.node("h1").call(lambda: asyncio.run(ask()))


def told(lab: Lab, node: str, port: str, lies: Lies) -> None:
    """Said, and seen through: LabError if the controller has not refused as many as there were."""
    before = status(lab)["counts"]
    say(lab, node, port, lies.frames)

    def refused() -> bool:
        now = status(lab)["counts"]
        return bool(
            now["refused"] - before["refused"] >= lies.refused
            and now["forged_lldp"] - before["forged_lldp"] >= lies.forged
        )

    wait_for(f"the controller to refuse what {node} says", refused, 15, 0.1)
