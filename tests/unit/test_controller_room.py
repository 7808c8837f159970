"""Which entries a small table gets, and how its size is found out from what it refuses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller_bridge.core.hosts import Station
from controller_bridge.core.marks import Mark
from controller_bridge.core.room import Room, Wanted, fit
from controller_bridge.openflow.flow import Flow
from controller_bridge.openflow.match import Match
from controller_bridge.topology import Place

NEAR, FAR = Place("s1", 1), Place("s9", 9)


def mac(number: int) -> bytes:
    return bytes([2, 0, 0, 0, number >> 8, number & 0xFF])


def table(
    stations: dict[bytes, Station], level: int = 0, fixed: int = 2
) -> dict[tuple[int, int, bytes], Wanted]:
    base = [Flow(1, Match.of(in_port=number + 1), b"") for number in range(fixed)]
    found = {one.place: Wanted(0, one) for one in base}
    for own, station in stations.items():
        for one in (Flow(30000, Match.of(eth_dst=own), b""), Flow(40000, Match.of(eth_src=own), b"")):
            found[one.place] = Wanted(level + (station.place == FAR), one, own)
    return found


def macs(kept: dict[tuple[int, int, bytes], Wanted]) -> list[bytes]:
    return [one.mac for one in kept.values() if one.mac]


def test_all_if_there_is_room() -> None:
    wanted = table({mac(1): Station(NEAR)})
    assert fit(wanted, len(wanted), {}, {mac(1): Station(NEAR)}) == wanted


def test_fixed_then_bound_then_one_of_each_port_and_its_own_entry_first() -> None:
    stations = {mac(number): Station(NEAR) for number in range(1, 9)}
    stations[mac(20)] = Station(FAR)
    stations[mac(30)] = Station(FAR, mark=Mark(True, 1))
    wanted = table(stations)
    kept = fit(wanted, 2 + 2 + 2 + 1, {}, stations)
    assert macs(kept) == [mac(30), mac(30), mac(1), mac(1), mac(20)]
    assert [key[1] for key, one in kept.items() if one.mac == mac(20)] == [30000]
    assert len([one for one in kept.values() if not one.mac]) == 2


def test_who_is_there_stays_there() -> None:
    stations = {mac(number): Station(NEAR) for number in range(1, 9)}
    wanted = table(stations)
    there = {key for key, one in wanted.items() if one.mac == mac(5)}
    assert macs(fit(wanted, 4, there, stations)) == [mac(5), mac(5)]


@given(st.integers(0, 400), st.integers(1, 500), st.integers(0, 500))
def test_the_limit_is_found_exactly_and_soon(size: int, wanted: int, started_with: int) -> None:
    """A table of ``size``; ``wanted`` entries are to be there."""
    room, there, refusals = Room(), min(started_with, size, wanted), 0
    for _round in range(100):
        target = wanted if room.limit is None else min(wanted, room.limit)
        if target <= there:
            if not room.taken(there):
                break
            continue
        if target > size:
            room.refused(there, target - there)
            refusals += 1
        else:
            there = target
            room.taken(there)
    assert there == min(size, wanted)
    assert refusals <= 10


def test_what_the_settings_say_is_never_exceeded() -> None:
    room = Room(100)
    assert room.limit == 100
    room.refused(80, 20)
    assert room.limit == 90
    assert room.taken(90)
    assert room.limit == 95
    assert not Room(100).taken(100)
