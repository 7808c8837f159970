"""A VM's port moves between two chassis of a real OVN, while a client on a third one sends to it: where its packets come out."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from contextlib import suppress
from typing import Any

import pytest
from dataplane_kit import BROADCAST, CLIENT, ETHERTYPE, GUEST, frame, isolated, numbers, until
from ovn_kit import SWITCH, VM_PORT, Course, Ovn, rarp, text

from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.ovn import opener

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovn-controller") is None, reason="no OVN here"),
    pytest.mark.skipif(shutil.which("ovn-northd") is None, reason="no OVN here"),
]
MOVE = Move("move-1", "vm", "host-a", "host-b", (text(GUEST),))


def settings(ovn: Ovn, **more: Any) -> dict[str, Any]:
    return {
        "northbound": ovn.central.remote("nb"),
        "southbound": ovn.central.remote("sb"),
        "chassis": {"host-a": "a", "host-b": "b"},
        **more,
    }


class Daemon:
    """Keeps its rerouter, and so its connections, from one step to the next."""

    def __init__(self, ovn: Ovn, **more: Any) -> None:
        self._runner = asyncio.Runner()
        self._rerouter = opener(settings(ovn, **more))

    def do(self, step: str, move: Move = MOVE) -> None:
        self._runner.run(getattr(self._rerouter, step)(move))

    def begin(self, step: str, s: float) -> None:
        """Given up after so long, wherever it is then."""

        async def run() -> None:
            with suppress(TimeoutError):
                await asyncio.wait_for(getattr(self._rerouter, step)(MOVE), s)

        self._runner.run(run())

    def do_all(self, *steps: tuple[str, Move]) -> None:
        async def run() -> None:
            await asyncio.gather(*(getattr(self._rerouter, step)(move) for step, move in steps))

        self._runner.run(run())

    def close(self) -> None:
        self._runner.run(self._rerouter.close())
        self._runner.close()


def once(ovn: Ovn, step: str, move: Move = MOVE, **more: Any) -> None:
    """By a daemon that has just been started and knows nothing but the move."""
    daemon = Daemon(ovn, **more)
    daemon.do(step, move)
    daemon.close()


def described(ovn: Ovn) -> tuple[Any, Any]:
    port = ovn.central.port()
    return port["options"], port["external_ids"]


@isolated()
def test_shrunk_at_cut_over() -> None:
    ovn = Ovn()
    course = Course(ovn)
    course.go_on()
    daemon = Daemon(ovn)
    daemon.do("prepare")
    assert ovn.central.binding() == ("a", ["b"])
    prepared = course.go_on()
    course.stop("a")
    daemon.do("cut_over")
    until(lambda: ovn.central.binding() == ("b", []), 5, "the source has left")
    course.run("b")
    course.taps["b"].write(rarp())
    course.go_on()
    daemon.do("finish")
    finished = course.go_on()
    found = course.end()
    assert not found.lost
    assert found.b == sorted(set(found.b))  # in order, once
    assert len(found.twice) < 50  # while the destination took the port, before it began to drop
    assert len(found.stranded) < 50
    assert max(found.left_a) < finished
    assert set(range(prepared, found.sent)) <= {*found.a, *found.left_a, *found.b}
    assert ovn.central.binding() == ("b", [])
    assert described(ovn) == ({"requested-chassis": "b", "mcast_flood": "false"}, {})


@isolated()
def test_activated_by_the_guests_rarp() -> None:
    """It names no IP address, and port security lets it pass."""
    ovn = Ovn()
    ovn.central.nbctl("lsp-set-port-security", VM_PORT, f"{text(GUEST)} 10.0.0.1")
    course = Course(ovn)
    course.run("b")  # both read, to see what goes where
    daemon = Daemon(ovn, at_cut_over="none")
    daemon.do("prepare")
    prepared = course.go_on()
    daemon.do("cut_over")
    course.go_on()
    assert [one for one in course.got("b") if one > prepared] == []
    course.taps["b"].write(rarp())
    both = course.go_on()
    daemon.do("finish")
    finished = course.go_on()
    found = course.end()
    assert not found.lost
    assert set(range(prepared, both - 5)) <= set(found.a)
    assert set(range(both - 30, both - 5)) <= set(found.b)
    assert max(found.a) < finished
    assert found.b == sorted(set(found.b))
    assert ovn.central.binding() == ("b", [])


@isolated()
def test_rolled_back_before_anything_moved() -> None:
    ovn = Ovn()
    before = described(ovn)
    course = Course(ovn)
    daemon = Daemon(ovn)
    daemon.do("prepare")
    course.go_on()
    daemon.do("roll_back")
    assert ovn.central.binding() == ("a", [])
    back = course.go_on()
    found = course.end()
    assert found.a == list(range(found.first, found.sent))  # all of it, once, in order
    assert not [one for one in found.left_b if one > back]
    assert described(ovn) == before


@isolated()
def test_rolled_back_after_cut_over() -> None:
    ovn = Ovn()
    before = described(ovn)
    course = Course(ovn)
    daemon = Daemon(ovn)
    daemon.do("prepare")
    course.go_on()
    course.stop("a")
    daemon.do("cut_over")
    daemon.do("roll_back")
    assert ovn.central.binding() == ("a", [])
    course.run("a")
    course.go_on()
    found = course.end()
    assert not found.lost
    assert found.a == sorted(set(found.a))
    assert described(ovn) == before


@pytest.mark.parametrize("last", ["finish", "roll_back"])
@isolated()
def test_each_step_twice_by_processes_that_know_only_the_move(last: str) -> None:
    ovn = Ovn()
    before = described(ovn)
    ovn.tap("a")
    ovn.ready()
    ovn.tap("b")
    for step in ("prepare", "cut_over", last):
        once(ovn, step)
        once(ovn, step)
    assert ovn.central.binding() == ("b" if last == "finish" else "a", [])
    options, others = described(ovn)
    assert (options, others) == (
        ({**before[0], "requested-chassis": "b"}, before[1]) if last == "finish" else before
    )


@isolated()
def test_given_up_at_any_instant() -> None:
    """What another daemon finds it puts back, or finishes."""
    ovn = Ovn()
    before = described(ovn)
    ovn.tap("a")
    ovn.ready()
    ovn.tap("b")
    daemon = Daemon(ovn)
    for milliseconds in (1, 3, 6, 10, 15, 20, 30):
        daemon.begin("prepare", milliseconds / 1000)
        once(ovn, "roll_back")
        assert (described(ovn), ovn.central.binding()) == (before, ("a", [])), milliseconds
        daemon.do("prepare")
        daemon.begin("cut_over", milliseconds / 1000)
        once(ovn, "roll_back")
        assert (described(ovn), ovn.central.binding()) == (before, ("a", [])), milliseconds
    daemon.do("prepare")
    daemon.begin("cut_over", 0.008)
    daemon.begin("finish", 0.008)
    once(ovn, "finish")
    assert ovn.central.binding() == ("b", [])
    assert described(ovn) == ({**before[0], "requested-chassis": "b"}, before[1])


@isolated()
def test_several_at_once() -> None:
    """A VM with two interfaces and a second VM, by one daemon: one goes, one is put back."""
    ovn = Ovn()
    macs = {VM_PORT: text(GUEST), **{f"more{number}": f"52:54:00:00:01:0{number}" for number in (1, 2)}}
    for name, mac in macs.items():
        if name != VM_PORT:
            ovn.central.nbctl("lsp-add", SWITCH, name, "--", "lsp-set-addresses", name, mac)
            ovn.central.nbctl("lsp-set-options", name, "requested-chassis=a")
    for chassis in "ab":
        for number, name in enumerate(macs):
            ovn.tap(chassis, name, f"tap{number}")
        until(lambda: all(ovn.central.binding(name) == ("a", []) for name in macs), 10, "the ports are bound")
    goes = Move("goes", "vm", "host-a", "host-b", (macs[VM_PORT], macs["more1"]))
    stays = Move("stays", "vm2", "host-a", "host-b", (macs["more2"],))
    daemon = Daemon(ovn)
    daemon.do_all(("prepare", goes), ("prepare", stays))
    assert [ovn.central.binding(name) for name in macs] == [("a", ["b"])] * 3
    daemon.do_all(("cut_over", goes), ("cut_over", stays))
    daemon.do_all(("finish", goes), ("roll_back", stays))
    daemon.close()
    assert [ovn.central.binding(name) for name in macs] == [("b", []), ("b", []), ("a", [])]
    assert [ovn.central.port(name)["external_ids"] for name in macs] == [{}] * 3


@isolated()
def test_what_others_set_stays() -> None:
    """Also what they set meanwhile, and an activation strategy of theirs."""
    ovn = Ovn()
    ovn.central.nbctl(
        "set", "logical_switch_port", VM_PORT, "options:activation-strategy=rarp", "external_ids:owner=me"
    )
    before = described(ovn)
    ovn.tap("a")
    ovn.ready()
    ovn.tap("b")
    once(ovn, "prepare", activation="none")
    assert described(ovn)[0] == {"requested-chassis": "a,b", "mcast_flood": "false"}
    ovn.central.nbctl("set", "logical_switch_port", VM_PORT, "options:qos_burst=7")
    once(ovn, "roll_back")
    assert described(ovn) == ({**before[0], "qos_burst": "7"}, before[1])


@isolated()
def test_a_port_that_was_bound_to_no_chassis_in_particular() -> None:
    ovn = Ovn(requested="")
    before = described(ovn)
    ovn.tap("a")
    ovn.ready()
    tap = None

    async def run() -> None:
        """The destination's tap comes while ``prepare`` waits for it: earlier, it would take the port for itself."""
        nonlocal tap
        rerouter = opener(settings(ovn))
        preparing = asyncio.create_task(rerouter.prepare(MOVE))
        await asyncio.to_thread(
            until, lambda: described(ovn)[0].get("requested-chassis") == "a,b", 10, "the port may be on both"
        )
        tap = ovn.tap("b")
        await preparing
        assert ovn.central.binding() == ("a", ["b"])
        ovn.chassis["b"].unplug("tap0")
        await rerouter.roll_back(MOVE)
        await rerouter.close()

    asyncio.run(run())
    assert ovn.central.binding() == ("a", [])
    assert described(ovn) == before


@isolated()
def test_what_is_broadcast_and_what_the_guest_sends() -> None:
    ovn = Ovn()
    course = Course(ovn)
    with ovn.client:
        client = Listener("eth0")
    once(ovn, "prepare")
    for number in range(20):
        course.taps["b"].write(from_guest(number))  # dropped: the destination is not open
    once(ovn, "cut_over")
    for number in range(20, 40):
        course.taps["b"].write(from_guest(number))
        ovn.packets.send(frame(number, 1, BROADCAST))
    until(
        lambda: client.numbers() == list(range(20, 40)), 10, "the client hears the guest at the destination"
    )
    once(ovn, "finish")
    course.run("b")
    course.go_on()
    course.end()
    assert [one for one in course.got("b", 1) if one >= 20] == list(range(20, 40))


def from_guest(number: int) -> bytes:
    sent = frame(number, 2)
    return CLIENT + GUEST + sent[12:]


class Listener:
    """What a device receives."""

    def __init__(self, device: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((device, int.from_bytes(ETHERTYPE, "big")))
        self._socket.setblocking(False)
        self._got: list[bytes] = []

    def numbers(self) -> list[int]:
        while True:
            try:
                got, where = self._socket.recvfrom(2000)
            except BlockingIOError:
                return numbers(self._got, 2)
            if where[2] != socket.PACKET_OUTGOING:
                self._got.append(got)
