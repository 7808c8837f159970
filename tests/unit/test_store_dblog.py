"""A damaged database must be told from one whose last write a crash cut short."""

import hashlib

import pytest

from vmnet.store import dblog


def record(body: bytes, magic: str = "JSON") -> bytes:
    return f"OVSDB {magic} {len(body)} {hashlib.sha1(body).hexdigest()}\n".encode() + body


BODIES = [b'{"name":"vmnet"}\n', b'{"Host":{}}\n', b'{"Journal":{"x":1}}\n']
WHOLE = b"".join(record(body) for body in BODIES)
LAST = len(WHOLE) - len(record(BODIES[-1]))


def test_whole_file() -> None:
    assert dblog.scan(WHOLE) == dblog.Scan(3, len(WHOLE), len(WHOLE))
    assert not dblog.scan(WHOLE).damaged


def test_cluster_records_count_too() -> None:
    assert dblog.scan(record(b"{}\n", "CLUSTER")).records == 1


@pytest.mark.parametrize("cut", range(LAST + 1, len(WHOLE)))
def test_any_cut_of_the_last_write_is_torn(cut: int) -> None:
    found = dblog.scan(WHOLE[:cut])
    assert (found.torn, found.damaged, found.good) == (True, False, LAST)


def test_zeroes_after_a_power_failure_are_torn() -> None:
    assert dblog.scan(WHOLE + b"\0" * 512).torn
    assert dblog.scan(WHOLE[:-4] + b"\0" * 4).torn


@pytest.mark.parametrize("at", [10, 60, 75, 100, LAST - 3, LAST + 70, len(WHOLE) - 3])
def test_a_flipped_bit_is_damage(at: int) -> None:
    spoilt = bytearray(WHOLE)
    spoilt[at] ^= 4
    assert dblog.scan(bytes(spoilt)).damaged


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"garbage\n" * 20])
def test_no_database_at_all_is_damage(content: bytes) -> None:
    assert dblog.scan(content).damaged
