"""Whatever an authenticated peer sends, it is agreed to or refused; nothing else is raised."""

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dom0.claim import Agreement, addresses, agreement
from dom0.preflight import Question
from vmnet.errors import PeerError

UUID = "11111111-2222-3333-4444-555555555555"
SCALAR = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.just("192.0.2.1")
)
JSON = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner))
WIRE = st.fixed_dictionaries(
    {"mac": st.just("52:54:00:00:00:01") | JSON, "vni": st.integers(1, 9) | JSON},
    optional={"stretched": JSON},
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just(UUID) | JSON,
        "mode": st.sampled_from(("managed", "hooks")) | JSON,
        "wires": st.lists(WIRE, max_size=70) | JSON,
        "tunnel_address": st.sampled_from(("192.0.2.1", "fe80::1%eth0")) | JSON,
        "generation": st.integers() | JSON,
        "segment": JSON,
        "home": JSON,
    },
)
QUESTION = st.fixed_dictionaries(
    {},
    optional={
        "vm": st.just(UUID) | JSON,
        **{name: st.text(max_size=9) | JSON for name in ("name", "machine", "arch", "driver")},
        "memory_kib": st.integers() | JSON,
        "tunnel_address": st.just("192.0.2.1") | JSON,
        "bridges": JSON,
        "mtu": st.integers() | JSON,
    },
)


@given(MESSAGE)
def test_agreement(message: dict[str, Any]) -> None:
    with suppress(PeerError):
        found = agreement(message)
        assert isinstance(found, Agreement)
        assert 0 < len(found.wires) <= 64 and found.generation >= 0
        assert all(0 < one.vni < 1 << 24 and len(one.mac_bytes) == 6 for one in found.wires)


@given(QUESTION)
def test_question(message: dict[str, Any]) -> None:
    with suppress(PeerError):
        found = Question.from_json(message)
        assert len(found.bridges) <= 64 and 0 <= found.mtu <= 65535


@given(JSON)
def test_addresses(raw: object) -> None:
    assert all(not one.is_multicast for one in addresses(raw))
