"""The controller's core over fabrics in memory: who finds whom, by which way, who is not believed, and what a restart changes."""

from __future__ import annotations

import random as randoms

import pytest
from fabric_model import GATEWAYS, KEY, Model, mac
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from controller_bridge.core import lldp, marks, neighbours
from controller_bridge.core.core import GATEWAY_MAC, Core
from controller_bridge.core.hosts import Station
from controller_bridge.core.places import Places
from controller_bridge.fabric import End
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Flow
from controller_bridge.openflow.match import Match
from controller_bridge.openflow.multipart import Port
from controller_bridge.topology import Place

SQUARE = {("s1", "s2"), ("s1", "s3"), ("s2", "s4"), ("s3", "s4")}


def wires(pairs: set[tuple[str, str]]) -> dict[Place, Place]:
    return {Place(one, int(other[1:])): Place(other, int(one[1:])) for one, other in pairs}


def square() -> Model:
    """s1 - (s2 or s3) - s4; a station at s1, one at s4, one at s2."""
    model = Model(["s1", "s2", "s3", "s4"], wires(SQUARE))
    model.connect()
    model.run(4)
    for number, switch in ((1, "s1"), (2, "s4"), (3, "s2")):
        model.add(number, Place(switch, 101), f"10.1.0.{number}")
    model.run(1)
    return model


def check(model: Model) -> None:
    """Every station finds every other by a shortest way."""
    topology = model.topology()
    places = {one.number: one.place for one in model.stations}
    for (one, other), walk in model.paths().items():
        assert walk.end == places[other], (one, other, walk)
        assert len(walk.path) == topology.distances(places[one].switch)[places[other].switch] + 1


@given(st.integers(1, 7), st.integers(0, 1 << 32))
def test_everybody_finds_everybody_by_a_shortest_way(count: int, seed: int) -> None:
    random = randoms.Random(seed)
    names = [f"s{number}" for number in range(1, count + 1)]
    pairs = {(random.choice(names[:at]), names[at]) for at in range(1, count)}
    pairs |= {
        (one, other)
        for one, other in (random.sample(names, 2) for _ in range(count) if count > 1)
        if (other, one) not in pairs
    }
    model = Model(names, wires(pairs))
    model.connect()
    model.run(4)
    for number in range(1, 5):
        model.add(number, Place(random.choice(names), 100 + random.randint(1, 3)), f"10.1.0.{number}")
    model.run(1)
    check(model)


def test_broadcasts_reach_everybody_once() -> None:
    model = square()
    first = model.stations[0]
    before = [len(one.got) for one in model.stations]
    model.send(first, b"\xff" * 6)
    assert [len(one.got) - count for one, count in zip(model.stations, before, strict=True)] == [0, 1, 1]


def test_who_is_known_is_answered_for_and_nobody_else_is_asked() -> None:
    model = square()
    one, other, third = model.stations
    heard = len(other.got), len(third.got)
    model.arrive(one.place, neighbours.question(_ip("10.1.0.2"), one.mac, _ip("10.1.0.1")))
    said = neighbours.read(one.got[-1])
    assert said is not None and said.owns == _ip("10.1.0.2") and one.got[-1][6:12] == other.mac
    assert (len(other.got), len(third.got)) == heard


def test_who_is_not_known_is_asked_for_at_the_edge() -> None:
    model = square()
    quiet = model.add(9, Place("s3", 102), "10.1.0.9")
    model.core.hosts.forget(mac(9))
    one = model.stations[0]
    model.arrive(one.place, neighbours.question(_ip("10.1.0.9"), one.mac, _ip("10.1.0.1")))
    model.run(1)
    assert model.core.hosts.stations[mac(9)].place == quiet.place
    check(model)


def _ip(text: str) -> object:
    from ipaddress import ip_address

    return ip_address(text)


def test_another_subnet_is_reached_through_the_gateway() -> None:
    model = square()
    one, other = model.stations[:2]
    model.arrive(one.place, neighbours.question(_ip("10.1.0.254"), one.mac, _ip("10.1.0.1")))
    assert one.got[-1][6:12] == GATEWAY_MAC
    packet = GATEWAY_MAC + one.mac + b"\x08\x00" + bytes(16) + bytes([10, 1, 0, 2])
    model.arrive(one.place, packet)
    assert other.got[-1] == other.mac + packet[6:]


def test_a_station_that_moves_is_followed() -> None:
    model = square()
    moved = model.stations[1]
    moved.place = Place("s3", 103)
    model.say(moved)
    model.run(0.05)
    assert model.paths()[1, 2].end != moved.place, "nobody has had time to contradict yet"
    model.run(1)
    check(model)


def test_a_station_whose_port_went_down_is_believed_at_once() -> None:
    model = square()
    moved = model.stations[1]
    old, moved.place = moved.place, Place("s3", 103)
    model.say(moved)
    model.core.port(old.switch, Port(old.port, mac(0), "p", 0, 1), gone=False)
    model.run(0.01)
    check(model)


@pytest.mark.parametrize("gone", [False, True], ids=["down", "gone"])
def test_a_station_that_speaks_after_its_port_went_down_is_believed_at_once(gone: bool) -> None:
    model = square()
    moved = model.stations[1]
    old, moved.place = moved.place, Place("s3", 103)
    model.core.port(old.switch, Port(old.port, mac(0), "p", 0, 1), gone)
    model.say(moved)
    model.run(0.01)
    check(model)


def test_who_says_that_it_is_somebody_else_is_not_believed() -> None:
    model = square()
    liar = model.stations[2]
    before = {name: dict(table) for name, table in model.tables.items()}
    for _ in range(20):
        model.say(
            liar, as_mac=model.stations[1].mac, address="10.1.0.2"
        )  # another's MAC: the old place answers
        model.say(liar, address="10.1.0.2")  # another's IP with its own MAC
        model.say(liar, address="10.1.0.254")  # the gateway
        model.run(0.2)
    assert model.tables == before
    assert model.core.hosts.stations[mac(2)].place == model.stations[1].place
    assert model.core.hosts.owner(_ip("10.1.0.2")) == mac(2)  # type: ignore[arg-type]
    assert model.core.counts.refused >= 20


def test_an_address_goes_over_if_its_owner_answers_for_it_no_more() -> None:
    """The device was replaced, or DHCP has given the address to another."""
    model = square()
    new, old = model.stations[2], model.stations[1]
    old.silent = True
    model.say(new, address="10.1.0.2")
    model.run(2)
    assert model.core.hosts.owner(_ip("10.1.0.2")) == old.mac  # type: ignore[arg-type]
    model.run(2)
    assert model.core.hosts.owner(_ip("10.1.0.2")) == new.mac  # type: ignore[arg-type]
    assert _ip("10.1.0.2") not in model.core.hosts.stations[old.mac].addresses
    assert len(model.core.hosts.contested) == 0


def test_the_owner_of_an_address_is_asked_more_than_once() -> None:
    """A question or an answer may be lost."""
    model = square()
    owner, other = model.stations[1], model.stations[2]
    owner.address = "10.9.0.9"  # it hears, and does not answer
    heard = len(owner.got)
    model.say(other, address="10.1.0.2")
    model.run(1.5)
    asked = [
        one for one in owner.got[heard:] if (said := neighbours.read(one)) and said.asks == _ip("10.1.0.2")
    ]
    assert len(asked) >= 2
    owner.address = "10.1.0.2"
    model.run(3)
    assert model.core.hosts.owner(_ip("10.1.0.2")) == owner.mac  # type: ignore[arg-type]


def test_many_addresses_may_be_contested_and_not_more() -> None:
    model = square()
    hosts, liar = model.core.hosts, model.stations[2]
    for number in range(3000):
        address = _ip(f"10.3.{number >> 8}.{number & 255}")
        hosts.put(b"\x02\1\1\1" + number.to_bytes(2), Station(Place("s1", 104), frozenset({address})))  # type: ignore[arg-type]
        hosts.heard(liar.mac, address, liar.place, model.now_s)  # type: ignore[arg-type]
    assert len(hosts.contested) == 1024


def test_a_station_without_addresses_is_asked_as_well() -> None:
    model = square()
    quiet = model.stations[1]
    model.core.hosts.put(quiet.mac, Station(quiet.place))
    heard = len(quiet.got)
    model.core.packet(Place("s3", 103), b"\xff" * 6 + quiet.mac + b"\x88\xb6" + bytes(46), model.now_s)
    (sent,) = model.core.answers.ask(quiet.place, quiet.mac)
    assert sent.place == quiet.place and sent.frame[:6] == quiet.mac and len(quiet.got) == heard
    packet = Ether(sent.frame)
    assert packet[IPv6].dst == "ff02::1" and packet[IPv6].src == "fe80::76:6dff:fe67:7701"
    assert packet[ICMPv6EchoRequest].cksum == Ether(bytes(_unsummed(packet)))[ICMPv6EchoRequest].cksum


def _unsummed(packet: Packet) -> Packet:
    copy = packet.copy()
    del copy[ICMPv6EchoRequest].cksum
    return copy


def test_nobody_hears_a_station_say_that_it_is_the_gateway() -> None:
    model = square()
    liar, *others = model.stations
    heard, refused = [len(one.got) for one in others], model.core.counts.refused
    model.say(liar, address="10.1.0.254")
    model.say(liar, address="fd01::fe")
    assert [len(one.got) for one in others] == heard
    assert model.core.counts.refused == refused + 2
    assert model.core.hosts.owner(_ip("10.1.0.254")) is None  # type: ignore[arg-type]


def test_a_bound_station_moves_only_when_that_is_told() -> None:
    model = square()
    vm = model.stations[1]
    model.core.hosts.bind(vm.mac, vm.place)
    vm.silent = True
    vm.place = Place("s3", 103)
    model.say(vm)
    model.run(2)
    assert model.paths()[1, 2].end == Place("s4", 101)
    model.core.hosts.bind(vm.mac, vm.place)
    model.core.dirty = True
    model.run(0.01)
    check(model)


FORGED = {
    "of no key": lldp.frame(lldp.Origin(1, 101), b"x" * 32, 1000.0),
    "too old": lldp.frame(lldp.Origin(1, 101), KEY, 900.0),
    "of no signature": lldp.frame(lldp.Origin(1, 101), KEY, 1004.0).replace(
        lldp._ORGANIZATION, b"\x00\x80\xc2\x01"
    ),
    "cut off": lldp.frame(lldp.Origin(1, 101), KEY, 1004.0)[:40],
}


@pytest.mark.parametrize("what", FORGED)
def test_forged_lldp_makes_no_link(what: str) -> None:
    model = square()
    before, links = {name: dict(table) for name, table in model.tables.items()}, model.core.links.up()
    model.arrive(Place("s4", 101), FORGED[what])
    model.run(1)
    assert (model.tables, model.core.links.up()) == (before, links)
    assert model.core.counts.forged_lldp == 1


def test_our_own_lldp_repeated_by_a_vm_makes_no_link() -> None:
    """It says what it heard at its own port, somewhere else: that is heard one way only."""
    model = square()
    links = model.core.links.up()
    genuine = lldp.frame(lldp.Origin(1, 101), KEY, model.now_s)
    model.arrive(Place("s4", 101), genuine)
    model.run(0.5)
    assert model.core.links.up() == links


def test_nothing_makes_a_link_where_a_hypervisor_is() -> None:
    """Two VMs that pass on each other's LLDP, both ways, look like a wire."""
    model = square()
    links = model.core.links.up()
    ends = Place("s1", 103), Place("s4", 103)
    model.wires |= {ends[0]: ends[1], ends[1]: ends[0]}
    model.core.places = Places(others=(End("s1", "103"), End("s4", "103")))
    model.connect()
    model.run(3)
    model.arrive(ends[0], lldp.frame(lldp.Origin(1, 101), KEY, model.now_s))
    assert model.core.links.up() == links
    assert model.core.counts.forged_lldp == 1, "and none went out there"


def test_what_goes_out_where_a_hypervisor_is_makes_no_end_of_it() -> None:
    """One way is enough to believe that a switch is there: no hello goes out, and one that came from there is none."""
    model = square()
    ends = model.core.links.ends()
    model.core.places = Places(others=(End("s1", "103"),))
    model.connect()
    assert Place("s1", 103) not in {one.place for one in model.core.hellos([Place("s1", 103)], model.now_s)}
    model.arrive(Place("s4", 103), lldp.frame(lldp.Origin(1, 103), KEY, model.now_s))
    assert model.core.links.ends() == ends


def test_where_links_are_named_there_are_no_others() -> None:
    """Two VMs that pass on each other's LLDP, at ports that nobody has named."""
    model = square()
    links = model.core.links.up()
    cabled = [End(one.switch, str(one.port)) for pair in links for one in pair]
    ends = Place("s1", 103), Place("s4", 103)
    model.wires |= {ends[0]: ends[1], ends[1]: ends[0]}
    model.core.places = Places(links=tuple(cabled))
    model.connect()
    model.run(5)
    assert model.core.links.up() == links


def test_a_link_that_is_lost_is_gone_round_and_comes_back() -> None:
    model = square()
    lost = {
        place: other
        for place, other in model.wires.items()
        if "s2" in (place.switch, other.switch) and "s4" in (place.switch, other.switch)
    }
    for place in lost:
        del model.wires[place]
    model.run(5)
    check(model)
    model.wires |= lost
    model.run(3)
    check(model)


def test_a_switch_that_is_lost_is_gone_round() -> None:
    model = square()
    model.core.switch_down("s2")
    model.run(0.01)
    walk = model.paths()[1, 2]
    assert [hop.switch for hop in walk.path] == ["s1", "s3", "s4"]
    # what lies behind it has no other way: its entries stay, for it may forward still
    assert mac(3) in {
        one.match.fields()[3][0] for one in model.tables["s1"].values() if 3 in one.match.fields()
    }
    model.connect("s2")
    model.run(4)
    check(model)


def test_a_controller_that_is_restarted_changes_nothing() -> None:
    model = square()
    before = {name: dict(table) for name, table in model.tables.items()}
    model.core, model.done = Core(KEY, GATEWAYS), []
    model.connect()
    model.run(5)
    assert model.done == []
    assert model.tables == before
    assert {one: station.place for one, station in model.core.hosts.stations.items()} == {
        one.mac: one.place for one in model.stations
    }
    check(model)


def test_what_differs_is_put_right_and_what_others_have_put_there_stays() -> None:
    model = square()
    foreign = Flow(5, Match.of(in_port=3), action.apply([action.output(1)]), cookie=99)
    odd = Flow(30000, Match.of(eth_dst=mac(77)), action.apply([action.output(1)]), cookie=marks.COOKIE | 4)
    model.tables["s1"] |= {foreign.place: foreign, odd.place: odd}
    del model.tables["s1"][
        next(key for key, one in model.tables["s1"].items() if one.priority == 30000 and one != odd)
    ]
    model.core.switch_down("s1")
    model.connect("s1")
    model.run(5)
    assert foreign.place in model.tables["s1"] and odd.place not in model.tables["s1"]
    check(model)


def test_a_port_that_floods_is_limited() -> None:
    model = square()
    one = model.stations[0]
    before = len(model.stations[1].got)
    for number in range(2000):
        model.send(one, b"\xff" * 6, number.to_bytes(4, "big"))
    assert len(model.stations[1].got) - before <= 501
    assert model.core.counts.limited >= 1490
