"""What hosts say of themselves: a peer that lies is caught where a lie can be seen. And what the daemon tells of traffic."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.dataplane.traffic_program import Counted
from dom0.facts import WINDOW_S, Facts
from dom0.host_facts import HostFacts, busy_percent
from dom0.traffic import MOST_TOLD, told
from vmnet.errors import PeerError

GOOD: dict[str, Any] = {
    "cpu_percent": 12.5,
    "cpus": 8,
    "memory_available_bytes": 1 << 30,
    "memory_total_bytes": 1 << 32,
}


def test_what_is_said_is_heard() -> None:
    facts = HostFacts.from_json(GOOD)
    assert facts.to_json() == GOOD
    assert (
        HostFacts.from_json({**GOOD, "cpu_percent": 100, "more": "of a newer version"}).cpu_percent == 100.0
    )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(
            ("cpu_percent", one)
            for one in (None, "7", True, -0.1, 100.1, float("nan"), float("inf"), 10**400, [])
        ),
        *(("cpus", one) for one in (None, 0, 1.0, True, 1 << 20)),
        *(("memory_available_bytes", one) for one in (None, -1, (1 << 32) + 1, 0.5)),
        *(("memory_total_bytes", one) for one in (None, 0, 1 << 61, "4 GiB")),
    ],
)
def test_what_cannot_be_is_refused(name: str, wrong: object) -> None:
    with pytest.raises(PeerError, match=name if name != "memory_total_bytes" else "memory"):
        HostFacts.from_json({**GOOD, name: wrong})
    with pytest.raises(PeerError):
        HostFacts.from_json({key: value for key, value in GOOD.items() if key != name})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.fixed_dictionaries(dict.fromkeys(GOOD, JSON)))
def test_a_peer_can_say_anything(message: dict[str, Any]) -> None:
    try:
        facts = HostFacts.from_json(message)
    except PeerError:
        return
    assert 0 <= facts.cpu_percent <= 100
    assert 0 <= facts.memory_available_bytes <= facts.memory_total_bytes


def test_busy_is_what_is_not_idle() -> None:
    before = {"user": 10.0, "system": 5.0, "idle": 100.0, "iowait": 1.0, "steal": 0.0, "guest": 4.0}
    after = {"user": 12.0, "system": 6.0, "idle": 106.0, "iowait": 2.0, "steal": 0.0, "guest": 5.0}
    assert busy_percent(before, after) == pytest.approx(100 * 3 / 10), "a guest's time is in user's already"
    assert busy_percent(after, after) == 0.0
    assert busy_percent(after, {**after, "idle": 90.0}) == 0.0, "a counter that goes back says nothing"


def test_of_this_machine_it_is_what_psutil_says() -> None:
    before = psutil.cpu_times()
    whole = psutil.cpu_percent(interval=0.5)
    ours = busy_percent(before._asdict(), psutil.cpu_times()._asdict())
    assert abs(ours - whole) < 10, "the windows differ by some milliseconds"


def test_whoever_asks_meanwhile_gets_the_same_measurement() -> None:
    async def ask() -> list[HostFacts]:
        facts = Facts(None, None)  # type: ignore[arg-type]
        return list(await asyncio.gather(*(facts.own() for _ in range(50))))

    began = time.monotonic()
    said = asyncio.run(ask())
    assert time.monotonic() - began < 10 * WINDOW_S
    assert all(one is said[0] for one in said)
    assert HostFacts.from_json(said[0].to_json()) == said[0]


def test_traffic_is_told_the_most_first_and_the_rest_in_one() -> None:
    mac = bytes.fromhex("020000000001")
    many = [Counted(ip_address(0x0A000000 + n), mac, 1000 - n) for n in range(MOST_TOLD + 3)]
    nobody = [Counted(None, bytes(6), 40), Counted(ip_address("224.0.0.5"), mac, 30), Counted(mac, mac, 0)]
    said = told([*many, *nobody], 2.0)
    assert len(said["addresses"]) == MOST_TOLD
    assert said["addresses"][0] == {"address": "10.0.0.0", "mac": "02:00:00:00:00:01", "bytes_per_s": 500.0}
    rest = sum(1000 - n for n in range(MOST_TOLD, MOST_TOLD + 3)) + 70
    assert said["other_bytes_per_s"] == rest / 2
    assert told([Counted(mac, mac, 10)], 1.0)["addresses"][0]["address"] == "02:00:00:00:00:01"
