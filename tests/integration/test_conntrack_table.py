"""Connections in a real kernel's table: added, replaced, taken back; and what a peer may not do there."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from dataplane_kit import Host, isolated

from dom0.conntrack import table
from dom0.conntrack.entry import LIBERAL, TCP, Entry, Key
from dom0.conntrack.peer_form import key_to_json, to_json
from dom0.conntrack.receiving import ConntrackReceiver

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not table.is_used(), reason="the kernel tracks no connections"),
]
GUEST, OTHER = socket.inet_aton("10.0.0.10"), socket.inet_aton("10.0.0.100")
GUEST6, OTHER6 = (socket.inet_pton(socket.AF_INET6, one) for one in ("fd00::10", "fd00::100"))
SSH = Entry(
    Key(0, TCP, OTHER, GUEST, bytes.fromhex("c3500016")),
    0x6,
    1000,
    7,
    b"",
    (3, 7, 6, LIBERAL | 1, LIBERAL | 1),
)
OF_IPV6 = replace(SSH, key=replace(SSH.key, source=OTHER6, destination=GUEST6))
PING = Entry(Key(5, 1, GUEST, OTHER, bytes.fromhex("12340800")), 0x2, 30)
UNRELATED = replace(SSH, key=replace(SSH.key, destination=socket.inet_aton("10.0.0.77")))


def apart(test: Callable[[], None]) -> Callable[[], None]:
    """In a network namespace of its own, and so with a table of its own."""

    def inside() -> None:
        with Host():
            test()

    inside.__name__ = test.__name__
    return isolated()(inside)


def of(guest: bytes) -> list[Entry]:
    """With the time as it was given: a second may have passed."""
    wanted = {one.key: one for one in (SSH, OF_IPV6, PING, UNRELATED)}
    return [replace(one, timeout_s=wanted[one.key].timeout_s) for one in table.about([guest], 100)]


def message(new: list[Entry], ended: list[Key] | None = None) -> dict[str, Any]:
    return {
        "addresses": ["10.0.0.10", "fd00::10"],
        "new": [to_json(one) for one in new],
        "ended": [key_to_json(one) for one in ended or []],
    }


@apart
def test_found_by_address() -> None:
    loaded = table.load([SSH, OF_IPV6, PING, UNRELATED])
    assert (len(loaded.made), loaded.replaced, loaded.refused) == (4, 0, 0)
    assert sorted(of(GUEST), key=repr) == sorted([SSH, PING], key=repr)
    assert of(GUEST6) == [OF_IPV6]
    assert table.count() == len(table.first(100)) == 4
    assert len(table.first(2)) == 2


@apart
def test_one_that_was_seen_from_its_middle_is_replaced() -> None:
    """An answer came here before the connection did: to the filter it is one that the VM begins."""
    answered = SSH.key.answered()
    assert answered is not None
    table.load([replace(SSH, key=answered, status=0, state=(1, 0, 0, 0, 0))])
    loaded = table.load([SSH])
    assert (loaded.made, loaded.replaced, loaded.refused) == ([], 1, 0)
    assert of(GUEST) == [SSH]


@apart
def test_what_is_too_many_is_told() -> None:
    many = [replace(SSH, key=replace(SSH.key, detail=bytes((1, one, 0, 22)))) for one in range(40)]
    answer = asyncio.run(ConntrackReceiver(logging.getLogger(), most=9).take(message(many)))
    assert answer["refused"] == 31
    assert "room" in answer["reason"]


@apart
def test_what_was_made_for_a_vm_that_does_not_come_is_removed() -> None:
    async def run() -> None:
        receiver = ConntrackReceiver(logging.getLogger())
        table.load([PING])  # of a VM of this host, that talks with the one that is to come
        assert await receiver.take(message([SSH, PING, OF_IPV6])) == {"refused": 0, "reason": ""}
        assert table.count() == 3
        await receiver.take(message([], [OF_IPV6.key]))
        assert sorted(of(GUEST), key=repr) == sorted([SSH, PING], key=repr)
        assert of(GUEST6) == []
        await receiver.give_back()
        assert of(GUEST) == [PING]

    asyncio.run(run())


@apart
def test_once_the_vm_runs_here_this_kernel_knows_better() -> None:
    late = replace(SSH, state=(8, 7, 6, LIBERAL | 1, LIBERAL | 1))

    async def run() -> None:
        receiver = ConntrackReceiver(logging.getLogger())
        await receiver.take(message([SSH]))
        assert await receiver.take(message([late, PING], [SSH.key]), runs=True) == {
            "refused": 0,
            "reason": "",
        }
        assert sorted(of(GUEST), key=repr) == sorted([SSH, PING], key=repr)

    asyncio.run(run())


@apart
def test_a_peer_opens_no_way_to_this_host_itself() -> None:
    subprocess.run(["ip", "address", "add", "10.0.0.100/24", "dev", "lo"], check=True, timeout=10)
    receiver = ConntrackReceiver(logging.getLogger())
    assert asyncio.run(receiver.take(message([SSH]))) == {"refused": 0, "reason": ""}
    assert table.count() == 0


@apart
def test_where_ovn_numbers_the_zones_none_of_another_host_is_taken() -> None:
    async def run(ours: bool) -> dict[str, Any]:
        async def own_zones() -> bool:
            return ours

        return await ConntrackReceiver(logging.getLogger(), own_zones=own_zones).take(message([SSH, PING]))

    answer = asyncio.run(run(True))
    assert answer["refused"] == 1
    assert "OVN" in answer["reason"]
    assert of(GUEST) == [SSH]
    assert asyncio.run(run(False)) == {"refused": 0, "reason": ""}
    assert sorted(of(GUEST), key=repr) == sorted([SSH, PING], key=repr)
