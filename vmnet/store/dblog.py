"""Is an OVSDB file whole? Format: ovsdb(5), "File Formats": a line ``OVSDB JSON LENGTH SHA1``, then LENGTH
bytes, repeated.

ovsdb-server itself reads up to the first bad record, logs a warning and goes on without the rest. For a
journal that would be silent loss, so we look first: a torn last record is a crash in mid-write (never
acknowledged, so it may go); anything else is damage.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

HEADER = re.compile(rb"OVSDB (?:JSON|CLUSTER) (\d{1,15}) ([0-9a-f]{40})\n")
HEADER_MAX = 80


@dataclass(frozen=True, slots=True)
class Scan:
    """``records`` whole records make up the first ``good`` bytes. ``torn``: the rest is an unfinished last
    write."""

    records: int
    good: int
    size: int
    torn: bool = False

    @property
    def damaged(self) -> bool:
        return self.records == 0 or (self.good < self.size and not self.torn)


def scan(content: bytes) -> Scan:
    """Follow the records from the start to the first that is not whole."""
    offset = records = 0
    while offset < len(content):
        end = _record_end(content, offset)
        if end is None:
            return Scan(records, offset, len(content), torn=_is_torn(content, offset))
        offset, records = end, records + 1
    return Scan(records, offset, len(content))


def _record_end(content: bytes, offset: int) -> int | None:
    header = HEADER.match(content, offset, offset + HEADER_MAX)
    if header is None:
        return None
    end = header.end() + int(header[1])
    body = content[header.end() : end]
    whole = (
        end <= len(content) and hashlib.sha1(body, usedforsecurity=False).hexdigest().encode() == header[2]
    )
    return end if whole else None


def _is_torn(content: bytes, offset: int) -> bool:
    """A write that a crash cut short ends early or in zeroes (blocks allocated, never filled), with nothing
    after it."""
    tail = content[offset:]
    header = HEADER.match(tail)
    if header is None:
        return not tail.strip(b"\0") or (
            b"\n" not in tail and tail.rstrip(b"\0").startswith(b"OVSDB"[: len(tail)])
        )
    rest = tail[header.end() :]
    if HEADER.search(rest):
        return False
    return len(rest) < int(header[1]) or rest.endswith(b"\0")
