"""What a fence is, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_bridge.fence import SOURCE, TOKEN_BYTES, fence, token_of

MAC = bytes.fromhex("525400000001")


@given(st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES))
def test_it_has_its_token_and_is_for_the_station(token: bytes) -> None:
    frame = fence(MAC, token)
    assert token_of(frame) == token
    assert frame[:6] == MAC and len(frame) == 60
    assert SOURCE[0] & 3 == 2, "locally administered, and no group"


@given(st.binary(max_size=80))
def test_what_is_none(frame: bytes) -> None:
    assert token_of(frame) is None or frame[6:12] == SOURCE
    assert token_of(fence(MAC, bytes(TOKEN_BYTES))[:29]) is None


def test_what_cannot_be_one() -> None:
    for mac, token in ((MAC[:5], bytes(16)), (MAC, bytes(15)), (MAC, bytes(17))):
        with pytest.raises(ValueError, match="a fence has an address of 6"):
            fence(mac, token)
