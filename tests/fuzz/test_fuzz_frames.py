"""Whatever a guest sends, reading it raises nothing."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from dom0.dataplane.addresses import source_address

MAC = bytes.fromhex("525400abcdef")


@given(st.binary(max_size=200), st.binary(min_size=6, max_size=6))
def test_any_bytes(frame: bytes, mac: bytes) -> None:
    found = source_address(frame, mac)
    assert found is None or isinstance(found, IPv4Address | IPv6Address)


@given(st.binary(min_size=6, max_size=6), st.binary(max_size=100))
def test_any_bytes_from_the_guest(destination: bytes, rest: bytes) -> None:
    found = source_address(destination + MAC + rest, MAC)
    assert found is None or isinstance(found, IPv4Address | IPv6Address)


@given(st.binary(max_size=100).filter(lambda one: one[6:12] != MAC))
def test_nobody_speaks_for_the_guest(frame: bytes) -> None:
    assert source_address(frame, MAC) is None
