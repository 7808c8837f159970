"""Where clients may be plugged in, and what of their interface goes along."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmnet.errors import LabError, NotFoundError, RefusedError
from vmnet.lab import arrival, interface, places, schema
from vmnet.lab.interface import Interface
from vmnet.lab.topology import End, Topology


@pytest.fixture
def campus() -> Topology:
    return schema.parse(schema.load_document(schema.find("campus")[1]))


def meant(topology: Topology, client: str, place: str) -> str:
    return places.name(places.target(topology, places.attachment(topology, client), place))


def test_a_port_or_the_first_free_one_of_a_switch(campus: Topology) -> None:
    assert meant(campus, "c1", "s5:room3") == "s5:room3"
    assert meant(campus, "c1", "s5") == "s5:room2", "room1 is c3's"
    assert meant(campus, "c1:eth0", "s2") == "s2:room1", "it is there already"
    assert meant(campus, "c2", "s2:room2") == "s2:room2"


@pytest.mark.parametrize(
    ("client", "place", "error", "words"),
    [
        ("c9", "s5", NotFoundError, "there is no client 'c9'; mobile clients: c1, c2, c3"),
        ("c1:eth1", "s5", NotFoundError, "c1:eth1 is not at an access port"),
        ("controller", "s5", NotFoundError, "controller is not at an access port"),
        ("s1", "s5", NotFoundError, "there is no client 's1'"),
        ("c1", "s9", NotFoundError, "there is no switch 's9'; switches with access ports: s2, s3, s5, s6"),
        ("c1", "s1", NotFoundError, "s1 has no access ports"),
        ("c1", "h1:room1", NotFoundError, "h1 has no access ports"),
        ("c1", "", NotFoundError, "there is no switch ''"),
        ("c1", "s5:room9", NotFoundError, "s5 has no access port 'room9'; it has: room1, room2"),
        ("c1", "s5:s4", NotFoundError, "s5 has no access port 's4'"),
        ("c1", "s5:room1", RefusedError, "s5:room1 is in use by c3:eth0; move c3 away first"),
    ],
)
def test_what_there_is_not_is_said_in_a_line(
    campus: Topology, client: str, place: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        meant(campus, client, place)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_a_full_switch_is_refused(campus: Topology) -> None:
    full = places.placed(campus, {"c2:eth0": "s5:room2"})
    narrow = replace(full.nodes["s5"], access=("room1", "room2"))
    full = replace(full, nodes={**full.nodes, "s5": narrow})
    with pytest.raises(RefusedError, match=r"every access port of s5 is in use; room\d: c\d, room\d: c\d"):
        meant(full, "c1", "s5")
    left = places.placed(full, {"c3:eth0": "s2:room4"})
    assert meant(left, "c1", "s5") == "s5:room1", "who left has freed it"


def test_a_moved_client_is_in_the_topology_where_it_is(campus: Topology) -> None:
    moved = places.placed(campus, {"c1:eth0": "s5:room3"})
    assert places.attachment(moved, "c1").switch == End("s5", "room3")
    assert moved.nodes["s2"].bridges[0].ports == ("s1", "s3", "h1", "room2")
    assert set(moved.nodes["s5"].bridges[0].ports) == {"s4", "s6", "h3", "room1", "room3"}
    assert moved.nodes["s5"].bridges[0].numbers == campus.nodes["s5"].bridges[0].numbers
    assert places.placed(campus, {}) == campus
    assert places.placed(moved, {"c1:eth0": "s2:room1"}) == campus


def test_addresses_and_routes_are_those_that_were_set() -> None:
    addresses = [
        {"family": "inet", "local": "10.0.0.1", "prefixlen": 24, "scope": "global"},
        {"family": "inet", "local": "10.0.0.2", "prefixlen": 24, "scope": "link", "broadcast": "10.0.0.255"},
        {"family": "inet6", "local": "fd01::1", "prefixlen": 64, "scope": "global"},
        {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
    ]
    assert interface.address_lines("eth0", addresses, "inet") == [
        "addr add 10.0.0.1/24 dev eth0",
        "addr add 10.0.0.2/24 brd 10.0.0.255 scope link dev eth0",
    ]
    assert interface.address_lines("eth0", addresses, "inet6") == ["addr add fd01::1/64 dev eth0 nodad"]
    routes = [
        {"dst": "default", "gateway": "10.9.9.9", "metric": 5},
        {"dst": "10.0.0.0/24", "protocol": "kernel", "scope": "link", "prefsrc": "10.0.0.1"},
        {"dst": "10.9.9.9", "scope": "link", "protocol": "static"},
    ]
    assert interface.route_lines("eth0", routes) == [
        "route add 10.9.9.9 proto static scope link dev eth0",
        "route add default via 10.9.9.9 metric 5 dev eth0",
    ]
    neighbours = [{"dst": "10.0.0.9", "lladdr": "52:54:00:00:00:09"}, {"dst": "10.0.0.8"}]
    assert interface.neighbour_lines("eth0", neighbours) == [
        "neigh replace 10.0.0.9 lladdr 52:54:00:00:00:09 nud permanent dev eth0"
    ]


def test_the_link_is_made_straight_in_its_namespaces() -> None:
    kept = Interface("52:54:00:00:01:01", 1500, 2, (), ())
    netns_of = {"c1": "vmnet-x-c1", "s5": "vmnet-x-s5"}
    assert interface.link_line(kept, End("c1", "eth0"), End("s5", "room3"), netns_of) == (
        "link add name eth0 index 2 mtu 1500 address 52:54:00:00:01:01 netns vmnet-x-c1 "
        "type veth peer name room3 mtu 1500 netns vmnet-x-s5"
    )


@pytest.mark.parametrize(
    "raw", [None, {}, {"mac": "x"}, {"mac": "x", "mtu": [], "index": 1, "lines": [], "lines6": []}]
)
def test_a_damaged_record_is_said(raw: object) -> None:
    with pytest.raises(LabError, match="record of an unfinished move is damaged"):
        interface.checked(raw)


def test_a_client_that_has_come_says_so_as_access_points_do() -> None:
    from scapy.layers.l2 import LLC, Dot3

    frame = Dot3(arrival.frame("52:54:00:00:01:01"))
    assert (frame.dst, frame.src, frame.len) == ("ff:ff:ff:ff:ff:ff", "52:54:00:00:01:01", 6)
    assert (frame[LLC].dsap, frame[LLC].ssap, frame[LLC].ctrl) == (0, 1, 0xAF)
    assert len(bytes(frame)) == 60
