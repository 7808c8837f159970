"""Whatever an authenticated peer sends, it is agreed to or refused; nothing else is raised. Each message is a valid one, damaged."""

import json
from typing import Any

import pytest
from damage import JSON, damaged
from hypothesis import given

from dom0.bound import agreed_binding, bound
from dom0.claim import Agreement, Wire, addresses, agreement
from dom0.preflight import Question
from vmnet.errors import PeerError
from vmnet.store import Binding

UUID = "11111111-2222-3333-4444-555555555555"
MACS = ("52:54:00:00:00:01", "52:54:00:00:00:02")
AGREED = Agreement(
    UUID,
    "managed",
    (Wire(MACS[0], 7, stretched=False, segment="lan"), Wire(MACS[1], 8, stretched=True, segment="far")),
    "192.0.2.1",
    3,
    "lan,far",
    "a",
    "0" * 32,
)
EXPECTED = agreed_binding(AGREED, UUID, "web", "b")
STORED = Binding(UUID, "web", "b", "br0", "vnet0,vnet1", MACS, 4, "lan,far", "a")
AGREEMENT: dict[str, Any] = json.loads(json.dumps(AGREED.to_json()))
BOUND: dict[str, Any] = json.loads(json.dumps({"id": UUID, "binding": STORED.to_json()}))
QUESTION: dict[str, Any] = {
    "vm": UUID,
    "name": "web",
    "machine": "pc",
    "arch": "x86_64",
    "driver": "kvm",
    "memory_kib": 1 << 20,
    "tunnel_address": "192.0.2.1",
    "lans": [["br0", "lan", [20, 30]], ["br1", "far", []]],
    "mtu": 1500,
    "coming": True,
}


def test_undamaged_they_are_taken() -> None:
    assert agreement(AGREEMENT) == AGREED
    assert bound(BOUND, EXPECTED) == STORED
    question = Question.from_json(QUESTION)
    assert question.bridges == ("br0", "br1")
    assert [one.to_json() for one in question.lans] == QUESTION["lans"]


@given(damaged(AGREEMENT))
def test_agreement(message: dict[str, Any]) -> None:
    try:
        found = agreement(message)
    except PeerError:
        return
    assert 0 < len(found.wires) <= 64 and 0 <= found.generation <= 1 << 62
    assert all(0 < one.vni < 1 << 24 and len(one.mac_bytes) == 6 for one in found.wires)
    assert found.mode in ("managed", "hooks") and len(found.segment) < 256


@given(damaged(BOUND))
def test_bound(message: dict[str, Any]) -> None:
    """It is about this VM, this peer and the next generation, or it is refused."""
    try:
        found = bound(message, EXPECTED)
    except PeerError:
        return
    assert (found.vm, found.host, found.generation, found.macs) == (UUID, "b", 4, MACS)
    assert (found.name, found.segment, found.home, found.active) == ("web", "lan,far", "a", True)
    assert found.bridge.isprintable() and found.port.isprintable()
    json.dumps(found.to_json()).encode()


@pytest.mark.parametrize(
    "field",
    [
        {"vm": UUID.replace("1", "2")},
        {"host": "c"},
        {"generation": 5},
        {"generation": 4.0},
        {"generation": True},
        {"home": "nowhere"},
        {"segment": ["x"]},
        {"macs": list(MACS[:1])},
        {"macs": 5},
        {"active": False},
        {"port": "\ud800"},
        {"bridge": "a\0"},
        {"bridge": "\x1b[2J"},
        {"port": "p" * 400_000},
    ],
    ids=repr,
)
def test_a_binding_of_anything_else_is_refused(field: dict[str, object]) -> None:
    with pytest.raises(PeerError, match=next(iter(field)) if "macs" not in field else "MAC"):
        bound({"binding": {**BOUND["binding"], **field}}, EXPECTED)


@given(damaged(QUESTION))
def test_question(message: dict[str, Any]) -> None:
    try:
        found = Question.from_json(message)
    except PeerError:
        return
    assert len(found.bridges) <= 64 and 0 <= found.mtu <= 65535
    assert len(found.lans) <= 64
    assert all(0 < vlan < 4095 for one in found.lans for vlan in one.vlans)
    assert all(one.segment.isprintable() and one.bridge.isprintable() for one in found.lans)


@given(JSON)
def test_addresses(raw: object) -> None:
    assert all(not one.is_multicast for one in addresses(raw))
