"""What the daemons agree on, field by field."""

import json

import pytest

from dom0.claim import (
    Agreement,
    Wire,
    address_field,
    addresses,
    agreement,
    field,
    mac_field,
    uuid_field,
)
from vmnet.errors import PeerError

GOOD = Agreement(
    id="11111111-2222-3333-4444-555555555555",
    mode="managed",
    wires=(Wire("52:54:00:00:00:01", 7, False), Wire("52:54:00:00:00:02", 0xFFFFFF, True)),
    tunnel_address="2001:db8::1",
    generation=3,
    segment="lan",
    home="left",
)


def test_over_the_wire_and_back() -> None:
    assert agreement(json.loads(json.dumps(GOOD.to_json()))) == GOOD
    assert GOOD.wires[0].mac_bytes == bytes.fromhex("525400000001")


@pytest.mark.parametrize("name", ["id", "mode", "wires", "tunnel_address", "generation", "segment", "home"])
@pytest.mark.parametrize("value", [None, "", "x" * 300, -1, True, 1.5, [], {}, [1], [{}]])
def test_one_wrong_field(name: str, value: object) -> None:
    if name in ("segment", "home") and value == "":
        return
    with pytest.raises(PeerError):
        agreement({**GOOD.to_json(), name: value})


@pytest.mark.parametrize(
    "wire",
    [
        {"mac": "52:54:00:00:00:0", "vni": 1},
        {"mac": "52:54:00:00:00:01\n", "vni": 1},
        {"mac": "52-54-00-00-00-01", "vni": 1},
        {"mac": "52:54:00:00:00:01", "vni": 0},
        {"mac": "52:54:00:00:00:01", "vni": 1 << 24},
        {"mac": "52:54:00:00:00:01", "vni": True},
    ],
)
def test_wires_that_are_refused(wire: dict[str, object]) -> None:
    with pytest.raises(PeerError):
        agreement({**GOOD.to_json(), "wires": [wire]})


def test_at_most_64_interfaces() -> None:
    wire = {"mac": "52:54:00:00:00:01", "vni": 1}
    with pytest.raises(PeerError):
        agreement({**GOOD.to_json(), "wires": [wire] * 65})


def test_a_number_is_no_truth_value_and_has_bounds() -> None:
    assert field({"n": 5}, "n", int, 5, 5) == 5
    for value in (True, "5", 4, 6, None, 5.0):
        with pytest.raises(PeerError):
            field({"n": value}, "n", int, 5, 5)


def test_fields_by_name() -> None:
    with pytest.raises(PeerError, match="'id' is no UUID"):
        uuid_field({"id": "../../etc/passwd"}, "id")
    with pytest.raises(PeerError, match="no MAC"):
        mac_field({"mac": "52:54:00:AB:CD:EF"})
    with pytest.raises(PeerError, match="no IP address"):
        address_field({"a": "192.0.2.1; rm"}, "a")
    assert address_field({"a": "2001:DB8:0::1"}, "a") == "2001:db8::1"


def test_only_usable_addresses_are_kept() -> None:
    raw = ["192.0.2.1", "ff02::1", "::", "224.0.0.1", 7, None, "nonsense", "2001:db8::1"]
    assert [str(one) for one in addresses(raw)] == ["192.0.2.1", "2001:db8::1"]
    assert len(addresses(["192.0.2.1"] * 1000)) <= 64
    assert addresses("192.0.2.1") == addresses(None) == addresses({}) == []
