"""Two daemons, whole but for what touches the machine, under loss, doubling, delay, failure and death at every phase."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from clock import JumpingLoop, Time
from world import MAC, VM, StandIn, World

from dom0 import shutdown
from dom0.bridge_port import BridgePort
from dom0.desk import Desk
from dom0.migration import LIBVIRT_LOST
from dom0.options import Options
from dom0.ovs_addresses import SwitchAddresses
from vmnet.errors import NotFoundError, PeerError, VmnetError
from vmnet.machine import State

PHASES = ["begin", "prepare", "pass 1", "copy"]
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a coroutine in a time of its own, with stand-ins for what the daemons' modules touch."""
    loop = JumpingLoop()

    async def at_once(function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    async def nothing(*_: Any) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    for module in (
        "migration",
        "source",
        "destination",
        "desk",
        "result",
        "convergence_watch",
        "outgoing",
        "marker_wait",
    ):
        monkeypatch.setattr(f"dom0.{module}.time", Time(loop))

    async def no_notes(*_: Any) -> list[str]:
        return []

    monkeypatch.setattr("dom0.preflight.ask", no_notes)
    monkeypatch.setattr("dom0.port_stations.behind", no_notes)
    monkeypatch.setattr("dom0.executor.undo", nothing)

    async def place_of(port: str, bridge: str) -> BridgePort:
        return BridgePort(bridge)

    monkeypatch.setattr("dom0.bridges.place_of", place_of)
    monkeypatch.setattr("dom0.bridges.add_port", nothing)
    monkeypatch.setattr("dom0.bridges.leave", nothing)
    monkeypatch.setattr("dom0.bridges.pin", lambda device, mac, on=True: None)
    monkeypatch.setattr("dom0.stand_ins.StandIn", StandIn)
    monkeypatch.setattr("dom0.desk.make_taps_ready", nothing)
    monkeypatch.setattr("dom0.dataplane.netdev.exists", lambda name: True)
    monkeypatch.setattr("dom0.dataplane.netdev.is_tap", lambda name: True)
    monkeypatch.setattr("dom0.dataplane.netdev.get_queue_length", lambda name: 1000)
    monkeypatch.setattr("dom0.dataplane.netdev.get_mtu", lambda name: 1500)

    def go(body: Coroutine[Any, Any, None]) -> None:
        try:
            loop.run_until_complete(asyncio.wait_for(body, 3600))
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            with contextlib.suppress(RuntimeError):
                loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    return go


@pytest.fixture(params=[False, True], ids=["learns", "told"])
def told(request: pytest.FixtureRequest) -> bool:
    """Whether the fabric is told of moves."""
    return bool(request.param)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, told: bool) -> Callable[..., World]:
    def build(*args: Any, **kwargs: Any) -> World:
        from world import Port

        world = World(*args, **kwargs, told=told)
        monkeypatch.setattr("dom0.source.SourcePort", lambda _tap, settings: Port(world.hosts["a"], settings))
        monkeypatch.setattr(
            "dom0.destination.DestinationPort",
            lambda one, stretched, _routed: Port(world.hosts["b"], one, stretched),
        )
        return world

    return build


async def settle(world: World) -> None:
    """Until both daemons have nothing open, at most an hour of theirs."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 1000
    while loop.time() < deadline:
        await asyncio.sleep(1)
        open_ones = [
            one
            for host in world.hosts.values()
            if host.alive
            for one in host.desk.migrations.values()
            if "_runner" not in vars(one) or not one._runner.done()
        ]
        if not open_ones and not world.tasks and not world.job_running:
            return
    raise AssertionError(
        {
            name: [(one.state, one.error) for one in h.desk.migrations.values()]
            for name, h in world.hosts.items()
        }
    )


def judge(world: World) -> str:
    """One place, both sides agree, nothing is left. Where the VM is."""
    assert list(world.at.values()) == ["running"], world.at
    (place,) = world.at
    asked = world.hosts["a"].alive and world.hosts["a"].store.records
    if world.fabric is not None and world.fabric.sure and asked:
        assert world.fabric.place == place
    for name, host in world.hosts.items():
        if not host.alive:
            continue
        assert all(port.closed and not port.stood_in for port in host.ports), name
        assert not [one for one in host.store.journals if not one.startswith("stretch:")], name
        assert not (host.alive and host.priorities and host.priorities[-1]), f"{name} keeps its priority"
        for record in host.store.records.values():
            expected = State.DONE if place == "b" else State.ROLLED_BACK
            assert record.state == expected.value, (name, record.state, place, record.error)
            assert record.finished is not None
    if place == "a":
        assert all(port.mode == "pass" for port in world.hosts["a"].ports if world.hosts["a"].alive)
    return place


async def managed(world: World) -> None:
    with contextlib.suppress(VmnetError):
        await world.hosts["a"].desk.migrate("blue", "b", Options())
    await settle(world)


async def expected(world: World) -> None:
    """Managed, and the hypervisor waits for no hook."""
    world.hosts["b"].context.marks.expected.add("blue")
    await managed(world)


async def hooks(world: World) -> None:
    with contextlib.suppress(VmnetError):
        await world.migrate()
    await settle(world)


WAYS = [managed, expected, hooks]


@pytest.mark.parametrize("way", WAYS)
def test_it_goes_well(run: Run, make: Callable[..., World], way: Callable[[World], Any]) -> None:
    async def body() -> None:
        world = make(1, 0.0)
        await way(world)
        assert judge(world) == "b"
        there, here = world.hosts["b"].store.known[VM], world.hosts["a"].store.known[VM]
        assert (there.host, there.generation) == (here.host, here.generation) == ("b", 2)
        (record,) = world.hosts["a"].store.records.values()
        assert record.verdict is not None and record.verdict["clean"], record.verdict
        assert record.verdict["rerouted"] is (True if world.fabric is not None else None)

    run(body())


@pytest.mark.parametrize(
    ("way", "phase"),
    [
        *((managed, phase) for phase in PHASES),
        (hooks, "begin"),
        (hooks, "copy"),
        (hooks, "prepare"),
        (hooks, "pass 1"),
    ],
)
def test_the_hypervisor_fails(
    run: Run, make: Callable[..., World], way: Callable[[World], Any], phase: str
) -> None:
    async def body() -> None:
        world = make(1, 0.0, phase)
        await way(world)
        assert judge(world) == "a"

    run(body())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(60))
def test_a_bad_wire(run: Run, make: Callable[..., World], way: Callable[[World], Any], seed: int) -> None:
    async def body() -> None:
        world = make(seed, 0.3)
        await way(world)
        judge(world)

    run(body())


def test_what_a_stopped_guest_left_is_sent_though_the_destination_does_not_answer(
    run: Run, make: Callable[..., World]
) -> None:
    """The packet with 'expect' was lost, and the hypervisor was quicker than TCP's timer."""

    async def body() -> None:
        world = make(1, 0.0)
        world.lost = ("expect",)
        await hooks(world)
        assert judge(world) == "b"
        assert world.hosts["a"].ports[0].mode == "divert"
        assert world.released_while == ["paused"]

    run(body())


def test_a_peer_that_answers_claims_with_errors_is_asked_with_pauses(
    run: Run, make: Callable[..., World]
) -> None:
    async def body() -> None:
        world = make(1, 0.0)
        world.unanswered = ["claim"] * 5000
        await hooks(world)
        assert list(world.at.values()) == ["running"]
        assert 2 < 5000 - len(world.unanswered) < 100

    run(body())


def test_a_destination_that_never_asks_is_named_as_the_cause(run: Run, make: Callable[..., World]) -> None:
    """libvirt only says that its job was cancelled, which is our own doing."""

    async def body() -> None:
        world = make(1, 0.0)
        world.lost = ("claim",)
        await expected(world)
        assert judge(world) == "a"
        (record,) = world.hosts["a"].store.records.values()
        assert "before the daemon on b had asked for it" in record.error, record.error

    run(body())


def test_a_destination_that_asks_only_after_the_first_passes_is_waited_for(
    run: Run, make: Callable[..., World]
) -> None:
    """libvirt does not wait for its hook. The migration ended with exit code 7."""

    async def body() -> None:
        world = make(1, 0.0)
        world.start_s, world.passes = (3.0,), 60
        await expected(world)
        assert judge(world) == "b"
        (record,) = world.hosts["a"].store.records.values()
        assert record.verdict is not None and record.verdict["clean"], record.verdict

    run(body())


def test_a_hypervisor_that_takes_minutes_to_make_the_guest_is_not_forgotten(
    run: Run, make: Callable[..., World]
) -> None:
    """The tap came 60 s after the first hook: the migration went on without vmnet, and nothing was logged (82 packets lost)."""

    async def body() -> None:
        world = make(1, 0.0)
        world.prepare_s = 300.0
        await hooks(world)
        assert judge(world) == "b"
        (record,) = world.hosts["a"].store.records.values()
        assert record.verdict is not None and record.verdict["clean"], record.verdict

    run(body())


def test_a_peer_gets_no_vm_that_libvirt_does_not_migrate(
    run: Callable[[Any], None], make: Callable[..., World]
) -> None:
    world = make(1, 0.0)
    desk = world.hosts["a"].desk

    async def body() -> None:
        with pytest.raises(PeerError, match="is not migrating VM 'blue'"):
            await desk.peer("b", "claim", {"vm": VM, "tunnel_address": "192.0.2.98", "segments": {}})
        world.job_running = True
        with pytest.raises(PeerError, match=r"tunnels end at .*66, which is not its address"):
            await desk.peer("b", "claim", {"vm": VM, "tunnel_address": "198.51.100.66", "segments": {}})
        assert not desk.migrations and world.at == {"a": "running"}

    run(body())


AGREED = {
    "id": "99999999-2222-3333-4444-555555555555",
    "mode": "managed",
    "wires": [{"mac": MAC, "vni": 7, "stretched": False, "segment": "lan", "link_vni": 0}],
    "tunnel_address": "192.0.2.97",
    "generation": 1,
    "segment": "lan",
    "home": "",
    "marker": "",
}


@pytest.mark.parametrize(
    ("told_by", "answers", "chosen"),
    [
        (None, {"a": True, "c": False}, "a"),
        (None, {"a": True, "c": True}, None),  # one of them lies
        ("a", {"a": True, "c": True}, "a"),
        ("c", {"a": True, "c": False}, "a"),  # what c had said came to nothing
        (None, {"a": False, "c": False}, None),
    ],
)
def test_whose_vm_it_is(
    run: Callable[[Any], None],
    make: Callable[..., World],
    monkeypatch: pytest.MonkeyPatch,
    told_by: str | None,
    answers: dict[str, bool],
    chosen: str | None,
) -> None:
    world = make(1, 0.0)
    b = world.hosts["b"]
    monkeypatch.setattr("dom0.stretch.check_remote", lambda _name, _peer, _address: None)

    class Peer:
        def __init__(self, agrees: bool) -> None:
            self.agrees = agrees

        async def request(self, op: str, _message: dict[str, Any], _limit_s: float) -> dict[str, Any]:
            assert op == "claim"
            if not self.agrees:
                raise NotFoundError("not mine")
            return AGREED

    config = replace(b.context.config, peers=dict.fromkeys(answers, b.context.config.peers["a"]))
    context = replace(b.context, config=config, peers={name: Peer(yes) for name, yes in answers.items()})
    desk = Desk(context)
    if told_by is not None:
        desk._told_by[VM] = told_by
    info = SimpleNamespace(uuid=VM, name="blue", interfaces=())

    async def body() -> None:
        found = await desk._source_of(SimpleNamespace(info=info, runs=False))  # type: ignore[arg-type]
        assert (None if found is None else found[0]) == chosen

    run(body())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("times", [1, 3])
def test_a_claim_whose_answer_is_lost_is_made_again(
    run: Run, make: Callable[..., World], way: Callable[[World], Any], times: int
) -> None:
    """The source has agreed: a destination that gave up would leave it diverting to nobody."""

    async def body() -> None:
        world = make(1, 0.0)
        world.unanswered = ["claim"] * times
        await way(world)
        assert judge(world) == "b"
        (record,) = world.hosts["a"].store.records.values()
        assert record.verdict is not None and record.verdict["clean"], record.verdict

    run(body())


@pytest.mark.parametrize(
    ("way", "phase", "victim"),
    [(way, phase, victim) for way in WAYS for phase in PHASES for victim in "ab"],
)
def test_one_daemon_dies(
    run: Run, make: Callable[..., World], way: Callable[[World], Any], phase: str, victim: str
) -> None:
    async def body() -> None:
        world = make(1, 0.0)
        world.die_at = (victim, phase)
        await way(world)
        judge(world)

    run(body())


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0])
def test_the_daemon_is_asked_to_end(run: Run, make: Callable[..., World], after_s: float) -> None:
    """Nobody is left behind: the guest has stayed, or gone with everything that had to be done."""

    async def body() -> None:
        world = make(1, 0.0)
        desk = world.hosts["a"].desk
        await desk.migrate("blue", "b", Options())
        await asyncio.sleep(after_s)
        await shutdown.end_migrations(list(desk.migrations.values()))
        assert all(one.final for one in desk.migrations.values())
        await settle(world)
        judge(world)

    run(body())


def test_a_verdict_says_that_libvirt_went_away_meanwhile(run: Run, make: Callable[..., World]) -> None:
    async def body() -> None:
        world = make(1, 0.0)
        desk = world.hosts["a"].desk
        moving = await desk.migrate("blue", "b", Options())
        moving.lose_hypervisor()
        moving.lose_hypervisor()
        await settle(world)
        assert moving.record.verdict is not None
        assert [note for note in moving.record.verdict["notes"] if "libvirt went away" in note] == [
            LIBVIRT_LOST
        ]

    run(body())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("copy_s", [0.5, 5.0])
def test_neighbours_are_answered_while_the_guest_stands_still_for_long(
    run: Run, make: Callable[..., World], way: Callable[[World], Any], copy_s: float
) -> None:
    """Not where the fabric is told: it answers for its stations by itself."""

    async def body() -> None:
        world = make(1, 0.0)
        world.copy_s = copy_s
        await way(world)
        assert judge(world) == "b"
        answered = sum(port.answered for port in world.hosts["a"].ports)
        assert (answered > 0) is (copy_s > 1 and world.fabric is None)
        assert not sum(port.answered for port in world.hosts["b"].ports)

    run(body())


@pytest.mark.parametrize("told", [False], indirect=True)
@pytest.mark.parametrize("way", WAYS)
def test_what_the_destination_remarks_is_in_the_verdict(
    run: Run, make: Callable[..., World], way: Callable[[World], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here that the old path's end was never seen."""

    async def body() -> None:
        world = make(1, 0.0)
        monkeypatch.setattr("world.Port.announce", lambda port, frames: None)
        await way(world)
        (record,) = world.hosts["a"].store.records.values()
        assert record.verdict is not None
        assert (record.verdict["ordered"], record.verdict["clean"]) == (False, False)
        assert [note for note in record.verdict["notes"] if "no announcement came back" in note]

    run(body())


def in_kernel(late: bool) -> Callable[..., Any]:
    """A port of an Open vSwitch in the kernel, whose first frames from the guest have been overtaken, or not."""
    from world import Port

    class KernelPort(Port):
        on_ovs, bridged, set_up, outgoing_full = True, True, 0, False
        own_unsure = late
        steps: tuple[str, ...] = ()

        def allow_setup(self) -> None: ...
        def tell_switch(self) -> None: ...
        def curb(self) -> None: ...

        def keep_upcall_order(self, switch_ports: Collection[str]) -> None:
            assert list(switch_ports) == ["up0", "vnet1"]

        def hold_outgoing(self) -> None:
            assert self._world.at["b"] == "incoming", "it has sent already"
            self.steps += ("hold",)

        def let_go_outgoing(self) -> bool:
            assert self._world.at["b"] == "running"
            self.steps += ("let go",)
            return True

        def own_overtaken(self) -> bool:
            assert self.steps == ("hold", "let go")
            return late

    return KernelPort


@pytest.mark.parametrize("told", [False], indirect=True)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("late", [False, True])
def test_what_the_guest_sends_first_waits_in_an_open_vswitch_of_the_kernel(
    run: Run,
    make: Callable[..., World],
    way: Callable[[World], Any],
    late: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def switch(tap: str) -> SwitchAddresses:
        return SwitchAddresses({1: "up0", 2: "vnet1"}, {}, {}, frozenset({"vnet1"}))

    async def body() -> None:
        world = make(1, 0.0)
        monkeypatch.setattr("dom0.bridges.ovs_addresses", switch)
        port = in_kernel(late)
        monkeypatch.setattr(
            "dom0.destination.DestinationPort",
            lambda one, stretched, _routed: port(world.hosts["b"], one, stretched),
        )
        await way(world)
        assert judge(world) == "b"
        (record,) = world.hosts["a"].store.records.values()
        assert record.verdict is not None
        assert record.verdict["ordered"] is not late
        assert bool([note for note in record.verdict["notes"] if "sent first" in note]) is late

    run(body())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("away_s", [0.0, 0.5, 20.0])
def test_libvirt_finishes_the_migration_with_its_clients_cut_off(
    run: Run, make: Callable[..., World], way: Callable[[World], Any], phase: str, away_s: float
) -> None:
    """As libvirtd does that is restarted at the source: the VM is at its new host, and the verdict says what is known."""

    async def body() -> None:
        world = make(1, 0.0)
        world.away_at, world.away_s = phase, away_s
        await way(world)
        assert judge(world) == "b"
        if way is hooks and phase in ("begin", "prepare"):
            return  # the claim needs libvirt: the VM goes without us
        (record,) = world.hosts["a"].store.records.values()
        assert record.state == "done" and LIBVIRT_LOST in record.verdict["notes"]

    run(body())


def test_libvirt_goes_away_before_it_can_stop_the_guest(run: Run, make: Callable[..., World]) -> None:
    """Its packets are at the destination already: the guest, which still runs here, is not left without them for minutes."""

    async def body() -> None:
        world = make(1, 0.0)
        world.away_at_suspend, world.passes = True, 500
        loop = asyncio.get_running_loop()
        began = loop.time()
        moving = await world.hosts["a"].desk.migrate("blue", "b", Options())
        await moving.finished()
        assert (moving.state, moving.whereabouts_known) == (State.ROLLED_BACK, False)
        assert loop.time() - began < 10
        world.away.clear()
        world.abort = True
        await settle(world)
        judge(world)

    run(body())


def test_a_peer_that_says_that_the_guest_runs_there_is_not_believed_while_it_runs_here(
    run: Run, make: Callable[..., World]
) -> None:
    async def body() -> None:
        world = make(1, 0.0)
        desk = world.hosts["a"].desk
        moving = await desk.migrate("blue", "b", Options())
        await moving.settled((State.PRECOPY,), 10)
        with pytest.raises(PeerError, match="VM 'blue' runs on a"):
            await desk.peer("b", "resumed", {"id": moving.record.id, "resume_ns": 1})
        await settle(world)
        assert judge(world) == "b"
        assert moving.record.verdict is not None and moving.record.verdict["clean"]

    run(body())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", PHASES)
def test_libvirt_is_away_and_the_migration_fails(
    run: Run, make: Callable[..., World], way: Callable[[World], Any], phase: str
) -> None:
    async def body() -> None:
        world = make(1, 0.0)
        world.away_at, world.away_s, world.fail_at = phase, 1.0, phase
        await way(world)
        assert judge(world) == "a"

    run(body())


LATE_S = (0.055, 0.0555, 0.056)


@pytest.mark.parametrize(
    "after_s",
    [0.001, 0.01, 0.02, 0.03, 0.04, 0.05, *LATE_S, 0.06, 0.1],
)
def test_the_operator_aborts(run: Run, make: Callable[..., World], after_s: float) -> None:
    async def body() -> None:
        world = make(1, 0.0)
        desk = world.hosts["a"].desk
        await desk.migrate("blue", "b", Options())
        await asyncio.sleep(after_s)
        with contextlib.suppress(VmnetError):
            desk.abort("blue")
        await settle(world)
        judge(world)

    run(body())
