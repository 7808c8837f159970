"""The journal's rows are orders, and a shared store has many writers: no device is touched that is not a migration's."""

from __future__ import annotations

import asyncio

import pytest

from dom0 import destination, executor
from dom0.claim import Agreement, Wire
from dom0.dataplane import classifier, names, netdev, tunnel
from vmnet.actions import Action, Kind
from vmnet.errors import RefusedError
from vmnet.store import JournalEntry

LAST = (Kind.NO_TUNNEL, Kind.NO_GATE, Kind.NO_WIRE, Kind.QUEUE, Kind.NO_STEER, Kind.LEAVE)


@pytest.mark.parametrize("kind", LAST)
def test_the_hosts_own_devices_are_left_alone(kind: Kind) -> None:
    with pytest.raises(RefusedError, match="neither vmnet's nor a VM's tap"):
        asyncio.run(executor.perform(Action(kind, "lo", "7"), None))


def test_what_is_refused_keeps_nothing_else_from_being_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(tunnel, "delete", deleted.append)
    entries = [
        JournalEntry(number, {"kind": "tunnel", "target": name}, {"kind": "no-tunnel", "target": name})
        for number, name in enumerate((names.tunnel_name(7), "uplink0", names.tunnel_name(8)))
    ]
    asyncio.run(executor.undo(entries, None))
    assert deleted == [names.tunnel_name(8), names.tunnel_name(7)]


def test_taps_and_what_has_gone_are_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    detached: list[str] = []
    monkeypatch.setattr(classifier, "detach", lambda device, _direction: detached.append(device))
    monkeypatch.setattr(netdev, "exists", lambda device: device == "vnet0")
    monkeypatch.setattr(netdev, "is_tap", lambda device: device == "vnet0")
    for device in ("vnet0", "vnet9", "vmr123456.2"):
        asyncio.run(executor.perform(Action(Kind.NO_GATE, device), None))
    assert detached == ["vnet0", "vnet9", "vmr123456.2"]


@pytest.mark.parametrize(
    ("vnis", "there"),
    [(((7, 0), (7, 0)), set()), (((7, 8), (9, 8)), set()), (((7, 7),), set()), (((7, 0), (8, 9)), {9})],
)
def test_a_peers_tunnel_that_is_here_already_is_refused(
    monkeypatch: pytest.MonkeyPatch, vnis: tuple[tuple[int, int], ...], there: set[int]
) -> None:
    """Its undoing would remove another migration's."""
    monkeypatch.setattr(netdev, "all_names", lambda: [names.tunnel_name(vni) for vni in there])
    wires = tuple(Wire("52:54:00:00:00:01", vni, False, "lan", link) for vni, link in vnis)
    with pytest.raises(RefusedError, match="in use here already"):
        destination.check_unused(Agreement("x", "managed", wires, "192.0.2.1", 1, "lan", "lan"))
    good = (Wire("52:54:00:00:00:01", 1, False, "lan", 2), Wire("52:54:00:00:00:02", 3, False, "lan"))
    destination.check_unused(Agreement("x", "managed", good, "192.0.2.1", 1, "lan", "lan"))
