"""Where clients are, read out of tables: our controller's, and plainer ones."""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_bridge import trace
from controller_bridge.core import desired
from controller_bridge.core.desired import Gateways
from controller_bridge.core.hosts import Station
from controller_bridge.follow.places import Book, Seen, locate, packet
from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Flow
from controller_bridge.openflow.match import Field, Match
from controller_bridge.topology import Place, Topology

GATEWAY, NEAR, FAR, VM = (bytes.fromhex(f"0200000000{one:02x}") for one in (0xFE, 1, 2, 0x10))
LINE = Topology({"s1", "s2", "s3"}, [(Place("s1", 9), Place("s2", 8)), (Place("s2", 9), Place("s3", 8))])
START = Place("s1", 1)
FOUR, SIX = ip_address("10.2.0.2"), ip_address("fd02::2")
STATIONS = {
    VM: Station(START, frozenset({ip_address("10.1.0.10")})),
    NEAR: Station(Place("s2", 3), frozenset({ip_address("10.1.0.1")})),
    FAR: Station(Place("s3", 4), frozenset({FOUR, SIX})),
}


def entry(port: int, priority: int = 10, to: bytes | None = None, **fields: object) -> Flow:
    does = [action.set_field(Field.ETH_DST, to)] if to else []
    return Flow(priority, Match.of(**fields), action.apply([*does, action.output(port)]))  # type: ignore[arg-type]


def ours() -> dict[str, list[Flow]]:
    wanted = desired.wanted(LINE, ("s1", "s2", "s3"), STATIONS, Gateways(GATEWAY))
    return {switch: [one.flow for one in some.values()] for switch, some in wanted.items()}


def where(one: Seen, tables: dict[str, list[Flow]], start: Place | None = START) -> Place | str:
    found, why = locate([one], tables, LINE, start)
    assert len(found) + len(why) == 1
    return found[one.address] if found else why[one.address]


@pytest.mark.parametrize("start", [START, None])
@pytest.mark.parametrize(
    ("seen", "place"),
    [
        (Seen("10.1.0.1", NEAR, 1.0), Place("s2", 3)),
        (Seen("10.2.0.2", GATEWAY, 1.0), Place("s3", 4)),
        (Seen("fd02::2", GATEWAY, 1.0), Place("s3", 4)),
        (Seen("fe80::2", FAR, 1.0), Place("s3", 4)),
        (Seen(FAR.hex(":"), FAR, 1.0), Place("s3", 4)),
    ],
    ids=lambda value: getattr(value, "address", ""),
)
def test_our_controllers_tables_by_mac_and_through_the_gateway(
    seen: Seen, place: Place, start: Place | None
) -> None:
    assert where(seen, ours(), start) == place


def test_who_has_no_entry_is_nowhere() -> None:
    for seen in (
        Seen("10.9.0.9", GATEWAY, 1.0),
        Seen("10.1.0.254", GATEWAY, 1.0),
        Seen("10.9.0.9", bytes(6), 1.0),
    ):
        assert where(seen, ours()) == "no switch's table says where it is"


def test_plain_tables_by_address() -> None:
    tables = {
        "s1": [entry(9, eth_type=0x0800, ipv4_dst=ip_network("10.2.0.0/16"))],
        "s2": [entry(9, eth_type=0x0800, ipv4_dst=FOUR)],
        "s3": [entry(4, eth_type=0x0800, ipv4_dst=FOUR)],
    }
    assert where(Seen("10.2.0.2", GATEWAY, 1.0), tables) == Place("s3", 4)
    assert where(Seen("10.2.0.2", GATEWAY, 1.0), tables, None) == Place("s3", 4)
    assert where(Seen("10.2.0.3", GATEWAY, 1.0), tables) == "no switch's table says where it is"


def test_a_rewritten_address_is_followed_on_switches_that_know_only_the_new_one() -> None:
    tables = {
        "s1": [entry(9, to=FAR, eth_type=0x0800, ipv4_dst=FOUR)],
        "s2": [entry(9, eth_dst=FAR)],
        "s3": [entry(4, eth_dst=FAR)],
    }
    assert where(Seen("10.2.0.2", GATEWAY, 1.0), tables) == Place("s3", 4)
    assert where(Seen("10.2.0.2", GATEWAY, 1.0), tables, None) == Place("s3", 4)


def test_tables_that_go_by_ports_alone() -> None:
    tables = {"s1": [entry(9, in_port=1)], "s2": [entry(3, in_port=8)]}
    assert where(Seen("10.1.0.1", NEAR, 1.0), tables) == Place("s2", 3)
    assert where(Seen("10.1.0.1", NEAR, 1.0), tables, None) == "no switch's table says where it is"


def test_what_is_left_over_at_an_old_place_does_not_mislead() -> None:
    tables = ours()
    tables["s2"].append(entry(5, priority=1, eth_dst=FAR))
    assert where(Seen("fe80::2", FAR, 1.0), tables) == Place("s3", 4), "packets go there"
    assert where(Seen("fe80::2", FAR, 1.0), tables, None) == (
        "the switches' tables say that it is at s2 port 5, s3 port 4"
    )


def test_who_is_on_the_vms_own_host_is_at_its_port() -> None:
    tables = {"s1": [entry(1, eth_dst=NEAR)]}
    assert where(Seen("10.1.0.1", NEAR, 1.0), tables) == START


def test_a_gateways_mac_in_an_address_entry_places_nobody_else() -> None:
    tables = {"s3": [entry(4, eth_dst=GATEWAY, eth_type=0x0800, ipv4_dst=FOUR)]}
    assert where(Seen("10.2.0.2", GATEWAY, 1.0), tables, None) == Place("s3", 4)
    assert where(Seen("10.2.0.77", GATEWAY, 1.0), tables, None) == "no switch's table says where it is"


MACS = (GATEWAY, NEAR, FAR)
ENTRIES = st.builds(
    lambda port, priority, to, match: entry(port, priority, to, **match),
    st.integers(1, 9),
    st.integers(0, 3),
    st.sampled_from([None, *MACS]),
    st.fixed_dictionaries(
        {},
        optional={"in_port": st.sampled_from([1, 8, 9]), "eth_dst": st.sampled_from(MACS)},
    ).flatmap(
        lambda known: st.sampled_from(
            [
                {},
                {"ipv4_dst": FOUR},
                {"ipv4_dst": ip_network("10.2.0.0/16")},
                {"ipv4_dst": ip_address("10.1.0.1")},
            ]
        ).map(lambda more: {**known, **({"eth_type": 0x0800} if more else {}), **more})
    ),
)


@given(
    st.fixed_dictionaries(dict.fromkeys(("s1", "s2", "s3"), st.lists(ENTRIES, max_size=6))),
    st.sampled_from(MACS),
    st.sampled_from(["10.2.0.2", "10.2.0.9", "10.1.0.1", FAR.hex(":")]),
)
def test_leaving_out_what_packets_cannot_meet_changes_no_way(
    tables: dict[str, list[Flow]], mac: bytes, address: str
) -> None:
    for switch, table in tables.items():  # of two that fit equally well a switch takes either
        tables[switch] = list({one.priority: one for one in table}.values())
    seen = Seen(address, mac, 1.0)
    packed = None if ":" in address else ip_address(address).packed
    few = Book(tables, LINE).towards(packed, mac)
    assert all(set(few.get(switch, ())) <= set(table) for switch, table in tables.items())
    walks = [trace.walk(some, LINE, START, packet(seen)) for some in (tables, few)]
    assert walks[0] == walks[1]


def test_long_tables_and_many_clients_take_no_long_time() -> None:
    many = {ip_address(0x0A030000 + n): n.to_bytes(6, "big") for n in range(1, 5001)}
    tables = {
        switch: [
            made
            for address, mac in many.items()
            for made in (
                entry(port, to=mac, eth_dst=GATEWAY, eth_type=0x0800, ipv4_dst=address),
                entry(port, eth_dst=mac),
            )
        ]
        for switch, port in (("s1", 9), ("s2", 9), ("s3", 4))
    }
    seen = [Seen(str(address), GATEWAY, 1.0) for address in list(many)[::79]]
    began = time.process_time()
    found, _ = locate(seen, tables, LINE, START)
    took_s = time.process_time() - began
    began = time.process_time()
    walk = trace.walk(tables, LINE, START, packet(seen[-1]))
    one_s = time.process_time() - began
    assert (walk.end, set(found.values()), len(found)) == (Place("s3", 4), {Place("s3", 4)}, 64)
    assert took_s < 32 * one_s, "whole tables for each client would take twice as long, at least"
