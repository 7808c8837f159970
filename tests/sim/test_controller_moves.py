"""Stations that their hosts' daemons lead over a fabric in memory: who may, what is remembered, and that no packet is astray."""

from __future__ import annotations

import random as randoms
from ipaddress import ip_address

import pytest
from fabric_model import GATEWAYS, KEY, Model, mac
from hypothesis import given
from hypothesis import strategies as st

from controller_bridge import last_words, trace
from controller_bridge.core import desired, marks, neighbours
from controller_bridge.core.answers import GATEWAY_MAC
from controller_bridge.core.core import Core
from controller_bridge.core.hosts import MOST_BOUND_AT_A_PORT, NOWHERE
from controller_bridge.core.moves import Moves, Order
from controller_bridge.core.places import Places
from controller_bridge.fabric import End
from controller_bridge.last_words import Words
from controller_bridge.openflow.match import Field
from controller_bridge.topology import Place
from vmnet.errors import RefusedError, UnavailableError

SQUARE = {("s1", "s2"), ("s1", "s3"), ("s2", "s4"), ("s3", "s4")}
HOSTS = {"a": End("s2", "101"), "b": End("s3", "101"), "c": End("s4", "101")}
VM = mac(3)
ORDER = Order("m1", "a", "b", (VM,), frozenset({ip_address("10.1.0.3")}))


class Led(Model):
    """s1 - (s2 with host a, or s3 with host b) - s4 with host c; the VM, station 3, is at a."""

    def __init__(self) -> None:
        wires = {Place(one, int(other[1:])): Place(other, int(one[1:])) for one, other in SQUARE}
        super().__init__(["s1", "s2", "s3", "s4"], wires)
        self.restart()
        for number, place in ((1, Place("s1", 102)), (2, Place("s4", 102)), (3, Place("s2", 101))):
            self.add(number, place, f"10.1.0.{number}")
        self.run(1)

    def restart(self, *switches: str) -> None:
        """Another controller, which knows what the tables say."""
        self.core = Core(KEY, GATEWAYS, Places(HOSTS))
        self.moves = Moves(
            self.core.hosts, self.core.places.of_host, marks.numbers(HOSTS), self.core.gateways.__contains__
        )
        self.done = []
        self.connect(*switches)
        self.run(4)

    def lead(self, check: bool = False) -> None:
        for level in self.core.changes_of([VM], self.now_s):
            for switch, changes in level.items():
                self._apply(switch, changes)
                self.core.done(switch, changes)
                if check:
                    self.nobody_is_astray({"s2", "s3"})

    def nobody_is_astray(self, ends: set[str]) -> None:
        for start in (Place("s1", 102), Place("s4", 102), Place("s2", 102), Place("s3", 102)):
            walk = self.walk(start)
            assert walk.end is not None and walk.end.switch in ends, (start, walk)

    def walk(self, start: Place) -> trace.Walk:
        tables = {name: list(table.values()) for name, table in self.tables.items()}
        return trace.walk(tables, self.topology(), start, {Field.ETH_DST: VM})

    def leads_to(self, place: Place) -> None:
        for name in self.ports:
            walk = self.walk(Place(name, 103))
            assert walk.end == place, (name, walk)
            assert len(walk.path) == self.topology().distances(name)[place.switch] + 1


A, B = Place("s2", 101), Place("s3", 101)


def plain(model: Led, guards: bool = True) -> dict[str, dict[object, bytes]]:
    """Without cookies."""
    return {
        name: {
            key: one.instructions
            for key, one in table.items()
            if guards or one.match.get(Field.IN_PORT) is None
        }
        for name, table in model.tables.items()
    }


def test_there_and_back_and_the_tables_are_as_before() -> None:
    model = Led()
    before = plain(model)
    model.moves.prepare("a", ORDER)
    model.lead()
    assert plain(model, guards=False) == before
    model.leads_to(A)
    model.moves.cut_over("a", ORDER)
    model.lead(check=True)
    model.leads_to(B)
    model.moves.roll_back("b", ORDER)
    model.lead(check=True)
    model.leads_to(A)
    model.run(20)
    assert plain(model) == before
    assert model.core.hosts.stations[VM].bound


def test_before_a_switch_turns_its_new_way_leads_to_the_new_place() -> None:
    """Setup frames by it come to the VM's new host, and the packets behind them find the same entries."""
    model = Led()
    model.moves.prepare("a", ORDER)
    prepared = model.core.changes_of([VM], model.now_s)
    assert not any(model.core.new_ways(level) for level in prepared), "nothing turns yet"
    model.lead()
    model.moves.cut_over("a", ORDER)
    turned = set()
    for level in model.core.changes_of([VM], model.now_s):
        for place, macs in model.core.new_ways(level).items():
            assert macs == {VM}
            turned.add(place.switch)
            tables = {name: list(table.values()) for name, table in model.tables.items()}
            topology = model.topology()
            assert trace.walk(tables, topology, topology.beyond[place], {Field.ETH_DST: VM}).end == B
        for switch, changes in level.items():
            model._apply(switch, changes)
            model.core.done(switch, changes)
    assert turned >= {"s1", "s2"}, "the client's switch, and the one that the VM was at"


def test_what_is_late_on_the_old_way_finds_the_old_place() -> None:
    """A switch's neighbour still goes by what it was told before: what it sends comes in where it would have to go out again."""
    model = Led()
    assert [hop.switch for hop in model.walk(Place("s1", 102)).path] == ["s1", "s2"]
    model.moves.cut_over("a", ORDER)
    model.lead()
    tables = {name: list(table.values()) for name, table in model.tables.items()}
    back = next(
        place.port
        for place, other in model.topology().beyond.items()
        if (place.switch, other.switch) == ("s2", "s1")
    )
    late = trace.walk(tables, model.topology(), Place("s2", back), {Field.ETH_DST: VM})
    assert late.end == A
    model.moves.finish("a", ORDER)
    model.run(2)
    assert not [one for one in model.tables["s2"].values() if one.match.get(Field.IN_PORT) is not None]
    model.leads_to(B)


def test_by_old_ways_a_fence_gets_behind_what_is_late() -> None:
    """From every switch that has another way now; none as long as it is not certain that one leads there."""
    model = Led()
    model.moves.prepare("a", ORDER)
    model.lead()
    refused(model, "fence", "a", ORDER, "not all of m1's stations are at b; cut_over comes before fence")
    model.moves.cut_over("a", ORDER)
    model.lead()
    refused(model, "fence", "c", ORDER, "c may not move what goes from a to b")
    model.moves.fence("b", ORDER)
    ways = model.core.old_ways(VM)
    assert {one.switch for one in ways} == {"s1", "s2", "s3", "s4"} and A in ways
    table = model.core.members["s2"].table
    model.core.members["s2"].table = {
        key: one for key, one in table.items() if one.match.get(Field.IN_PORT) is None
    }
    assert model.core.old_ways(VM) == [A], "without guards they would come back"
    model.core.switch_down("s2")
    assert model.core.old_ways(VM) == []
    assert model.core.old_ways(mac(9)) == []


def refused(model: Led, step: str, caller: str, order: Order, says: str) -> None:
    before = dict(model.core.hosts.stations)
    with pytest.raises(RefusedError, match=says):
        getattr(model.moves, step)(caller, order)
    assert model.core.hosts.stations == before


@pytest.mark.parametrize("step", ["prepare", "cut_over", "roll_back"])
def test_no_host_steals_a_station_of_another(step: str) -> None:
    model = Led()
    model.core.hosts.bind(VM, A)
    for source, destination in (("b", "a"), ("a", "b"), ("b", "c"), ("c", "b")):
        order = Order("m9", source, destination, (VM,))
        if (step, source) in (("roll_back", "a"), ("cut_over", "b")) and "a" in (source, destination):
            getattr(model.moves, step)("b", order)  # it is where that would have it: nothing is done
            assert model.core.hosts.stations[VM].mark.partner == 0
        else:
            refused(model, step, "b", order, "is not b's to move: it is at a")
    refused(model, step, "c", Order("m9", "a", "b", (VM,)), "c may not move what goes from a to b")
    refused(model, step, "a", Order("m9", "a", "a", (VM,)), "is both where it is to come from")
    refused(model, step, "a", Order("m9", "a", "d", (VM,)), "does not know where host 'd' is")


def test_only_the_host_that_the_source_has_named_may_lead_it_and_only_while_the_move_lasts() -> None:
    model = Led()
    model.moves.prepare("a", ORDER)
    refused(model, "cut_over", "c", Order("m1", "a", "c", (VM,)), "not c's to move")
    refused(model, "cut_over", "b", Order("m2", "a", "b", (VM,)), "not b's to move")  # another move
    model.moves.cut_over("b", ORDER)
    refused(model, "cut_over", "a", Order("m3", "a", "c", (VM,)), "not a's to move")
    model.moves.finish("a", ORDER)
    refused(model, "roll_back", "a", ORDER, "not a's to move: it is at b")
    model.moves.finish("a", ORDER)
    model.moves.prepare("b", Order("m4", "b", "c", (VM,)))
    refused(model, "prepare", "a", ORDER, "not a's to move")


def test_finish_moves_nothing() -> None:
    model = Led()
    model.moves.prepare("a", ORDER)
    refused(model, "finish", "a", ORDER, "not all of m1's stations are at b; cut_over comes before finish")


def test_who_may_is_known_to_a_controller_that_is_started_anew() -> None:
    model = Led()
    model.moves.prepare("a", ORDER)
    model.lead()
    model.restart()
    assert model.done == []
    model.moves.cut_over("b", ORDER)
    model.lead()
    model.restart()
    assert model.done == []
    assert model.core.hosts.left == {VM: A}, "what is late is let arrive"
    refused(model, "roll_back", "c", Order("m1", "c", "b", (VM,)), "not c's to move")
    model.moves.roll_back("a", ORDER)
    model.lead()
    model.restart()
    model.leads_to(A)
    refused(model, "cut_over", "b", ORDER, "not b's to move")
    assert model.core.hosts.owner(ip_address("10.1.0.3")) == VM


def test_a_bound_station_is_not_somebody_else_while_its_switch_has_not_connected_yet() -> None:
    model = Led()
    model.moves.cut_over("a", ORDER)
    model.lead()
    model.moves.finish("a", ORDER)
    model.lead()
    model.run(20)
    before = {name: dict(table) for name, table in model.tables.items()}
    model.restart("s1", "s2", "s4")
    assert model.core.hosts.stations[VM].place == NOWHERE
    forger = model.stations[0]
    model.say(forger, as_mac=VM, address="10.1.0.3")
    model.say(forger, address="10.1.0.3")
    model.run(2)
    assert model.core.counts.refused >= 1
    assert model.core.hosts.stations[VM].place == NOWHERE
    with pytest.raises(UnavailableError, match="where 52:54:00:00:01:03 is now is not known yet"):
        model.moves.cut_over("a", Order("m2", "a", "c", (VM,)))
    model.connect("s3")
    model.run(4)
    assert model.core.hosts.stations[VM].place == B
    assert model.core.hosts.owner(ip_address("10.1.0.3")) == VM
    assert model.tables == before


@given(st.permutations(["s1", "s2", "s3", "s4"]), st.sampled_from(["s1", "s2", "s3", "s4"]))
def test_a_switch_that_was_away_does_not_bring_an_old_place_back(order: list[str], away: str) -> None:
    model = Led()
    model.moves.prepare("a", ORDER)
    model.lead()
    old = dict(model.tables[away])
    model.moves.cut_over("a", ORDER)
    model.lead()
    model.moves.finish("a", ORDER)
    model.lead()
    model.tables[away] = old
    model.restart(*order)
    if away == "s3":  # it alone could say by which port
        assert model.core.hosts.stations[VM].place == NOWHERE
        return
    assert model.core.hosts.stations[VM].place == B
    model.leads_to(B)


def test_a_vm_is_taken_back_from_where_nobody_can_reach() -> None:
    model = Led()
    model.moves.cut_over("a", ORDER)
    model.lead()
    model.restart("s1", "s2", "s4")
    model.moves.roll_back("a", ORDER)
    model.lead()
    assert [model.walk(Place(name, 103)).end for name in ("s1", "s2", "s4")] == [A] * 3
    model.connect("s3")
    model.run(4)
    model.leads_to(A)


def test_release() -> None:
    model = Led()
    model.moves.prepare("a", ORDER)
    with pytest.raises(RefusedError, match="is not at b: it is at a"):
        model.moves.release("b", [VM])
    assert model.moves.release("a", [VM, mac(77)]) == [VM]
    model.lead()
    vm = model.stations[2]
    vm.place = Place("s1", 103)
    model.say(vm)
    model.run(1)
    model.leads_to(vm.place)
    assert model.moves.release("a", [VM]) == []


def test_forget() -> None:
    model = Led()
    model.moves.prepare("a", ORDER)
    with pytest.raises(RefusedError, match="only root"):
        model.moves.forget("a", [mac(1)])
    with pytest.raises(RefusedError, match="is bound: it is at a; release it first"):
        model.moves.forget(None, [mac(1), VM])
    assert mac(1) in model.core.hosts.stations, "nothing is half done"
    addresses = model.core.hosts.stations[mac(1)].addresses
    assert addresses and model.moves.forget(None, [mac(1), mac(77)]) == [mac(1)]
    assert all(model.core.hosts.owner(one) is None for one in addresses)
    model.core.dirty = True
    model.run(1)
    assert model.core.hosts.stations.keys() & {mac(1)} == set()
    model.say(model.stations[0])
    model.run(1)
    assert model.core.hosts.stations[mac(1)].addresses == addresses


def test_a_vms_addresses_are_taken_from_who_is_not_bound() -> None:
    """Who said them first may be a squatter."""
    model = Led()
    model.core.hosts.heard(mac(66), ip_address("10.1.0.200"), Place("s1", 109), model.now_s)
    order = Order("m1", "a", "b", (VM,), ORDER.addresses | {ip_address("10.1.0.200")})
    bound = model.moves.prepare("a", order)
    assert not bound.left_out
    assert model.core.hosts.owner(ip_address("10.1.0.200")) == VM
    assert not model.core.hosts.stations[mac(66)].addresses


def test_a_vm_that_was_never_heard_is_bound_by_its_own_host() -> None:
    model = Led()
    new = Order("m5", "a", "b", (mac(9),), frozenset({ip_address("10.1.0.9"), ip_address("10.1.0.254")}))
    refused(model, "prepare", "b", new, "is not known; it is for a to say")
    bound = model.moves.prepare("a", new)
    assert bound.left_out == {ip_address("10.1.0.254")}, "a gateway's"
    assert model.core.hosts.owner(ip_address("10.1.0.9")) == mac(9)
    other = Order("m6", "a", "b", (mac(10),), frozenset({ip_address("10.1.0.9")}))
    assert model.moves.cut_over("b", other).left_out == {ip_address("10.1.0.9")}, "another's"
    assert model.core.hosts.owner(ip_address("10.1.0.9")) == mac(9)


def test_a_host_has_its_own_room_only() -> None:
    model = Led()
    for number in range(MOST_BOUND_AT_A_PORT):
        model.core.hosts.bind(b"\x02\x00" + number.to_bytes(4, "big"), B)
    refused(model, "cut_over", "a", ORDER, "b has 4096 stations already")


def test_a_hosts_port_that_has_another_number_takes_its_vms_along() -> None:
    from controller_bridge.openflow.multipart import Port

    model = Led()
    model.core.places = Places({"a": End("s2", "p101"), "b": End("s3", "p101")})
    model.connect()
    model.run(4)
    model.core.hosts.bind(VM, A)
    model.core.port("s2", Port(101, mac(0), "p101", 0, 0), gone=True)
    model.core.port("s2", Port(103, mac(0), "p101", 0, 0), gone=False)
    assert model.core.hosts.stations[VM].place == Place("s2", 103)


def test_the_vms_own_frames_at_its_new_host_are_refused_until_it_is_bound_there_and_not_after() -> None:
    model = Led()
    model.moves.prepare("a", ORDER)
    model.lead()
    vm = model.stations[2]
    vm.place = B
    count = model.core.counts.refused
    model.say(vm)
    assert model.core.counts.refused == count + 1
    model.moves.cut_over("a", ORDER)
    model.lead()
    model.say(vm)
    model.arrive(B, neighbours.question(ip_address("10.1.0.1"), VM, ip_address("10.1.0.3")))
    assert model.core.counts.refused == count + 1
    assert neighbours.read(vm.got[-1]) is not None


def test_what_the_vm_has_said_at_its_old_host_is_still_passed_on_and_its_last_when_all_else_is_through() -> (
    None
):
    model = Led()
    model.moves.prepare("a", ORDER)
    model.lead()
    model.moves.cut_over("a", ORDER)
    model.lead()
    vm, other = model.stations[2], model.stations[0]
    refused = model.core.counts.refused
    late = b"\xff" * 6 + VM + b"\x88\xb6" + bytes(46)
    model.arrive(A, late)
    assert other.got[-1] == late
    last = last_words.frame(VM, b"m" * 16, Words.LAST)
    model.arrive(A, last)
    assert other.got[-1] == last
    assert vm.place == A and model.core.counts.refused == refused
    assert model.core.hosts.stations[VM].place == B, "it makes no difference to where it is"
    model.moves.finish("a", ORDER)
    model.arrive(A, last)
    assert other.got.count(last) == 1, "nobody waits for it any more, and a bridge might learn of it"
    model.run(3)
    model.arrive(A, late)
    assert model.core.counts.refused > refused, "not for ever"


@pytest.mark.parametrize("cut", [False, True])
def test_the_last_is_swept_if_hellos_get_lost_and_before_the_cut_over_too(cut: bool) -> None:
    """The controller may be told of the cut-over later than a host takes to stop its VM."""
    model = Led()
    model.moves.prepare("a", ORDER)
    model.lead()
    if cut:
        model.moves.cut_over("a", ORDER)
    rehearsal, last = (last_words.frame(VM, b"m" * 16, one) for one in Words)
    other = model.stations[0]
    hellos = model.core.packet(A, last, model.now_s)
    assert hellos and {one.frame[12:14] for one in hellos} == {b"\x88\xcc"}, "these get lost"
    model.core.packet(A, rehearsal, model.now_s)
    assert last not in other.got
    model.run(0.1)
    assert other.got.count(last) == other.got.count(rehearsal) == 1, "neither took the other's place"


@given(st.integers(0, 1 << 32))
def test_generations_count_round(seed: int) -> None:
    random = randoms.Random(seed)
    one = random.randint(1, 255)
    later = one
    for _ in range(random.randint(1, 127)):
        later = marks.following(later)
    assert marks.newer(later, one) and not marks.newer(one, later)
    assert marks.newer(one, 0) and not marks.newer(0, one) and not marks.newer(one, one)


@given(st.lists(st.text("abcdef0123456789", min_size=1, max_size=8), unique=True, max_size=1000))
def test_every_host_has_a_number_of_its_own(hosts: list[str]) -> None:
    found = marks.numbers(hosts)
    assert len(set(found.values())) == len(hosts)
    assert all(1 <= one <= 0xFFF for one in found.values())
    for number in found.values():
        mark = marks.Mark(True, 255, number)
        assert marks.read(marks.cookie(marks.Kind.GATEWAY, mark)) == mark
        assert marks.cookie(marks.Kind.GATEWAY, mark) & marks.OWNER_MASK == marks.COOKIE
        assert marks.cookie(marks.Kind.GATEWAY, mark) & 1 == 0


def test_what_small_tables_leave_out_goes_by_the_controller() -> None:
    """In at the edge or from another switch, by MAC address or through the gateway."""
    wires = {Place("s1", 2): Place("s2", 1)}
    model = Model(["s1", "s2"], wires)
    limit = len(desired.BASE) + 5
    model.core = Core(KEY, GATEWAYS, table_sizes={"s2": limit})
    model.connect()
    model.run(4)
    client = model.add(1, Place("s1", 101), "10.1.0.1")
    others = [model.add(number, Place("s2", 101 + number % 3), f"10.1.0.{number}") for number in range(2, 30)]
    model.run(1)
    assert len(model.tables["s2"]) == limit
    assert model.core.members["s2"].left_out == 2 * 29 - 5
    for number, one in enumerate(others):
        payload = b"to %d" % number
        model.send(client, one.mac, payload)
        assert one.got[-1].endswith(payload)
        packet = bytes(16) + ip_address(one.address).packed + payload
        model.arrive(client.place, GATEWAY_MAC + client.mac + b"\x08\x00" + packet)
        assert one.got[-1][:12] in (one.mac + client.mac, one.mac + GATEWAY_MAC)
        assert one.got[-1].endswith(packet)
        model.send(one, client.mac, b"back")
        assert client.got[-1].endswith(b"back")
    assert model.core.counts.limited == 0


def test_who_is_bound_displaces_who_is_not_and_never_is_there_more_than_may_be() -> None:
    model = Led()
    model.core.table_sizes = {name: len(desired.BASE) + 4 for name in model.ports}
    for name in model.ports:
        model.core.switch_down(name)
    model.connect()
    for number in range(20, 40):
        model.add(number, Place("s1", 103), f"10.1.0.{number}")
    model.run(4)
    limit = len(desired.BASE) + 4
    for step in (model.moves.prepare, model.moves.cut_over, model.moves.finish):
        step("a", ORDER)
        for level in model.core.changes_of([VM], model.now_s):
            for switch, changes in level.items():
                for one in changes:
                    model._apply(switch, [one])
                    model.core.done(switch, [one])
                    assert len(model.tables[switch]) <= limit
        model.run(1)
    model.leads_to(B)
    model.run(20)
    model.leads_to(B)
