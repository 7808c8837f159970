"""What is said to the controller: bounds on each field, one line for what is wrong."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_bridge.api import words
from controller_bridge.core.moves import Order
from vmnet.errors import RefusedError

HEADER = "525400000001" + "520000000009" + "0800" + "45" + "00" * 19
GOOD: dict[str, Any] = {
    "id": "3f1c-1",
    "source": "a",
    "destination": "b",
    "macs": ["52:54:00:00:00:01", "52:54:00:00:00:01"],
    "addresses": ["10.0.0.1", "fd00::1"],
}


def test_an_order_is_read() -> None:
    addresses = frozenset({ip_address("10.0.0.1"), ip_address("fd00::1")})
    assert words.order(GOOD) == Order("3f1c-1", "a", "b", (bytes.fromhex("525400000001"),), addresses)
    assert words.order({**GOOD, "addresses": []}).addresses == frozenset()
    assert words.order({**GOOD, "headers": [HEADER]}).headers == (bytes.fromhex(HEADER),)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("id", "", "'id' is not"),
        ("id", "x" * 101, "'id' is not"),
        ("id", "a\nb", "'id' is not"),
        ("id", 3, "'id' is not"),
        ("source", "-a", "'source' is not a host's name"),
        ("destination", "b" * 64, "'destination' is not a host's name"),
        ("macs", [], "'macs' is empty"),
        ("macs", "52:54:00:00:00:01", "'macs' is no list"),
        ("macs", ["52:54:00:00:00:01"] * 33, "'macs' is no list of 32 at most"),
        ("macs", ["525400000001"], "a MAC address is to be written"),
        ("macs", ["ff:ff:ff:ff:ff:ff"], "is no station's MAC address"),
        ("macs", ["00:00:00:00:00:00"], "is no station's MAC address"),
        ("macs", ["02:76:6d:67:77:01"], "is the fabric's own"),
        ("macs", ["02:76:6d:67:77:02"], "is the fabric's own"),
        ("macs", [None], "a MAC address is to be written"),
        ("addresses", ["10.0.0"], "no IP address"),
        ("addresses", [1], "no IP address"),
        ("addresses", ["fe80::1%eth0"], "no IP address"),
        ("addresses", ["10.0.0.1"] * 65, "'addresses' is no list of 64 at most"),
        ("headers", "525400000001", "'headers' is no list"),
        ("headers", [HEADER] * 65, "'headers' is no list of 64 at most"),
        ("headers", [HEADER[:26]], "is not 14 to 96 bytes"),
        ("headers", ["00" * 97], "is not 14 to 96 bytes"),
        ("headers", ["zz" * 20], "is not 14 to 96 bytes"),
        ("headers", [7], "is not 14 to 96 bytes"),
        ("headers", ["525400000002" + HEADER[12:]], "52:54:00:00:00:02, which is not in 'macs'"),
        ("color", "red", "a field that is not known"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(field: str, value: Any, says: str) -> None:
    with pytest.raises(RefusedError, match=says) as caught:
        words.order({**GOOD, field: value})
    assert "\n" not in str(caught.value)


def test_where_an_answer_goes_on() -> None:
    assert words.after({}) == b""
    assert words.after({"after": "52:54:00:00:00:01"}) == bytes.fromhex("525400000001")
    with pytest.raises(RefusedError):
        words.after({"after": ["x"]})


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@given(
    st.dictionaries(
        st.sampled_from(["id", "source", "destination", "macs", "addresses", "headers", "x"]), _json
    ),
    st.sampled_from([words.order, words.released, words.after]),
)
def test_whatever_is_said_is_understood_or_refused(payload: dict[str, Any], reader: Any) -> None:
    try:
        reader({**GOOD, **payload} if reader is words.order else payload)
    except RefusedError as error:
        assert "\n" not in str(error)


def test_a_fence_is_an_order_and_a_token() -> None:
    token = "0123456789abcdef" * 2
    assert words.fenced({**GOOD, "token": token}) == (words.order(GOOD), bytes.fromhex(token))
    for wrong in ("", token[:-1], token + "0", token.upper(), 3, None):
        with pytest.raises(RefusedError, match="'token' is not 32 hexadecimal digits"):
            words.fenced({**GOOD, "token": wrong})
    with pytest.raises(RefusedError, match="'token' is not"):
        words.fenced(GOOD)
