"""Whatever a VM, its neighbours or a peer sends: nothing is raised but what is meant to be, and no more is sent than may be."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dom0.router.keepalive import MOST_FRAMES_PER_S, KeepaliveBook, understand
from dom0.router.keepalive_handover import export_book, import_book
from dom0.router.session import Keepalive
from vmnet.errors import PeerError

VM = bytes.fromhex("525400000001")
KNOWN = [
    # as scapy makes them
    # BFD over IPv4
    "52540000000252540000000108004500003400010000ff1137b4c0000201c0000202c0000ec80020b85420c003180000000b"
    "00000016000186a0000186a00000c350",
    # BFD over IPv6
    "52540000000252540000000186dd60000000002011fffe800000000000000000000000000001fe8000000000000000000000"
    "00000002c0000ec800203f5420c003180000000b00000016000186a0000186a00000c350",
    # VRRP 3
    "52540000000252540000000108004500002000010000ff701959c0000201e00000123107c8010064a1f8c0000209",
    # VRRP 2
    "52540000000252540000000108004500002800010000ff701951c0000201e00000122107c801000154ecc000020900000000"
    "00000000",
    # OSPF 2
    "525400000002525400000001080045000044000100000159175ac0000201e000000502010030c0000201000000007ac30000"
    "0000000000000000ffffff0000010001000000040000000000000000c0000202",
    # OSPF 3
    "52540000000252540000000186dd6000000000285901fe800000000000000000000000000001ff0200000000000000000000"
    "0000000503010028c00002010000000079c200000000000001000000000100040000000000000000c0000202",
]
FRAMES = [bytes.fromhex(one) for one in KNOWN]


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """A good frame with some bytes changed, cut or longer."""
    frame = bytearray(draw(st.sampled_from(FRAMES)))
    for _ in range(draw(st.integers(0, 3))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    end = draw(st.integers(0, len(frame))) if draw(st.booleans()) else len(frame)
    return bytes(frame[:end]) + draw(st.binary(max_size=8))


ANY = st.one_of(st.binary(max_size=150), nearly())


def test_the_examples_are_understood() -> None:
    assert all(isinstance(understand(one, VM), Keepalive) for one in FRAMES)


@settings(max_examples=1000, deadline=None)
@given(ANY)
def test_any_frame(frame: bytes) -> None:
    found = understand(frame, VM)
    if isinstance(found, Keepalive):
        again = understand(found.frame, VM)
        assert isinstance(again, Keepalive)
        assert again.frame == found.frame
        assert again.key == found.key
        assert len(found.frame) <= len(frame)
        # nothing but flags, echo interval and checksum differs from what the VM sent
        assert found.frame[:34] == frame[:34]


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), ANY, st.floats(0, 1)), max_size=60))
def test_any_traffic(events: list[tuple[bool, bytes, float]]) -> None:
    book, now, frames = KeepaliveBook(VM, limit_s=1, random=Random(1)), 0.0, 0
    for own, frame, pause_s in events:
        now += pause_s
        (book.seen if own else book.heard)(frame, now)
    book.stop(now)
    start = now
    while (at := book.next(now)) is not None:
        now = max(now, at)
        frames += len(book.due(now))
    assert frames <= len(book) * 2 + MOST_FRAMES_PER_S * 1.1
    assert now < start + 1
    import_book(export_book(book, now), VM, 5.0)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = ("frame", "age_s", "interval_s", "required_s", "at_once")


@settings(deadline=None)
@given(JSON, st.sampled_from(("stood_s", "sessions", *NAMES)))
def test_any_letter(value: Any, name: str) -> None:
    book = KeepaliveBook(VM)
    for one in FRAMES:
        book.seen(one, 0.0)
    letter = export_book(book, 0.1)
    (letter["sessions"][0] if name in NAMES else letter)[name] = value
    for raw in (value, letter):
        try:
            taken = import_book(raw, VM, 5.0)
        except PeerError:
            continue
        assert all(entry.keepalive.frame[6:12] == VM for entry in taken.entries())
