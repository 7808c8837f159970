"""A book on its way to the VM's next host, as JSON; checked as it comes in: a peer is authenticated, not infallible. Pure.

What came in is read like what a VM sent: a peer can make us send keepalives of this VM's sessions, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dom0.router.keepalive import LEAST_INTERVAL_S, LIMIT_S, MOST_SESSIONS, Entry, KeepaliveBook, understand
from dom0.router.packet import MOST_FRAME_BYTES
from dom0.router.session import Keepalive
from vmnet.errors import PeerError

_MOST_S = 86_400.0


def export_book(book: KeepaliveBook, now: float) -> dict[str, Any]:
    """Ages instead of times, for hosts' clocks differ: of frames when the VM stopped (or ``now``), and of the stop."""
    stopped_at = book.stopped_at
    then = now if stopped_at is None else stopped_at
    return {
        "stood_s": None if stopped_at is None else now - stopped_at,
        "sessions": [_export_entry(one, then) for one in book.entries()],
    }


def _export_entry(entry: Entry, then: float) -> dict[str, Any]:
    return {
        "frame": entry.keepalive.frame.hex(),
        "age_s": min(max(0.0, then - entry.seen_at), _MOST_S),
        "interval_s": entry.keepalive.interval_s,
        "required_s": entry.required_s,
        "at_once": entry.keepalive.at_once,
    }


def import_book(message: object, mac: bytes, now: float, limit_s: float = LIMIT_S) -> KeepaliveBook:
    """The book as it was exported; if the VM stood still then, it stands still since. PeerError for anything unexpected."""
    if not isinstance(message, Mapping):
        raise PeerError("the peer's keepalives are no object")
    stood_s = None if message.get("stood_s") is None else _seconds(message, "stood_s")
    sessions = message.get("sessions")
    if not isinstance(sessions, list) or len(sessions) > MOST_SESSIONS:
        raise PeerError(f"the peer's keepalives are no list of at most {MOST_SESSIONS} sessions")
    stopped_at = now - (stood_s or 0.0)
    book = KeepaliveBook(mac, limit_s)
    for one in sessions:
        book.remember(_import_entry(one, mac, stopped_at))
    if stood_s is not None:
        book.stop(stopped_at)
    return book


def _import_entry(raw: object, mac: bytes, then: float) -> Entry:
    if not isinstance(raw, Mapping):
        raise PeerError("a session among the peer's keepalives is no object")
    keepalive = _keepalive(raw.get("frame"), mac)
    interval_s = _seconds(raw, "interval_s")
    # a Poll Sequence under way keeps it below what the frame says; never above
    if not min(LEAST_INTERVAL_S, keepalive.interval_s) <= interval_s <= keepalive.interval_s:
        raise PeerError("an interval among the peer's keepalives is not that of its frame")
    keepalive = replace(keepalive, interval_s=interval_s, at_once=raw.get("at_once") is True)
    return Entry(keepalive, then - _seconds(raw, "age_s"), _seconds(raw, "required_s"))


def _keepalive(text: object, mac: bytes) -> Keepalive:
    try:
        frame = bytes.fromhex(text) if isinstance(text, str) and len(text) <= 2 * MOST_FRAME_BYTES else b""
    except ValueError:
        frame = b""
    found = understand(frame, mac)
    if not isinstance(found, Keepalive) or found.frame != frame:
        raise PeerError("a frame among the peer's keepalives is none of this VM's")
    return found


def _seconds(message: Mapping[str, Any], name: str) -> float:
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_S:
        raise PeerError(f"the peer's '{name}' is no time from 0 to {_MOST_S:g} s")
    return float(value)
