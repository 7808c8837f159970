"""Wires: programs that hand whatever comes in at one device to another, past every bridge."""

from __future__ import annotations

from dom0.dataplane import classifier, netdev
from dom0.dataplane.classifier import Direction
from dom0.dataplane.gate_program import wire_code


def attach(device: str, to: str, ingress: bool, mark: int = 0) -> None:
    """What comes in at ``device`` goes out of ``to``, or (``ingress``) comes in there, with a mark. Replaces a program of ours."""
    classifier.load_and_attach(
        device, Direction.INGRESS, wire_code(netdev.index_of(to), ingress, mark), "vmnet_wire"
    )


def both_ways(tap: str, tunnel: str) -> None:
    """A guest whose LAN is at the tunnel's other end."""
    attach(tunnel, tap, ingress=False)
    attach(tap, tunnel, ingress=False)
