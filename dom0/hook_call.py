"""A hook call as it travels from the hook script to the daemon, and the answer (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from vmnet.wire import one_line

MAX_XML = 1_048_576
MAX_HEADER = 8192
MAX_FIELD = 1024


@dataclass(frozen=True)
class HookCall:
    """What libvirt told a hook: ``driver`` is "qemu" or "libxl"; ``xml`` is unparsed and untrusted."""

    driver: str
    name: str
    op: str
    subop: str
    extra: str
    xml: bytes


@dataclass(frozen=True)
class HookAnswer:
    """``xml`` replaces the VM's (empty: unchanged); a non-empty ``refuse`` says, in one line, why not."""

    xml: bytes = b""
    refuse: str = ""


async def parse_call(line: bytes, read: Callable[[int], Awaitable[bytes]]) -> HookCall:
    """Parse a header line, then read its XML with ``read(n)``. Raises ValueError if it is no hook call."""
    driver, name, op, subop, extra, length = parse_header(line)
    return HookCall(driver, name, op, subop, extra, await read(length) if length else b"")


def parse_header(line: bytes) -> tuple[str, str, str, str, str, int]:
    """``HOOK 1 DRIVER NAME OP SUBOP EXTRA LENGTH\\n`` as driver, name, op, subop, extra, length in bytes."""
    words = line[:-1].split(b" ")
    if not line.endswith(b"\n") or len(line) > MAX_HEADER or len(words) != 8 or words[:2] != [b"HOOK", b"1"]:
        raise ValueError("not a hook call of version 1")
    driver, name, op, subop, extra = (_field(word) for word in words[2:7])
    if driver not in ("qemu", "libxl"):
        raise ValueError(f"unknown driver {driver!r}")
    if not (words[7].isdigit() and len(words[7]) <= 7 and int(words[7]) <= MAX_XML):
        raise ValueError(f"length {words[7][:20]!r} is not 0 to {MAX_XML}")
    return driver, name, op, subop, extra, int(words[7])


def _field(word: bytes) -> str:
    text = unquote_to_bytes(word).decode("utf-8", "strict")
    if len(text) > MAX_FIELD or not text.isprintable():
        raise ValueError("a field is too long or not printable")
    return text


def encode_answer(answer: HookAnswer) -> bytes:
    """The bytes of an answer. Raises ValueError if its XML is larger than MAX_XML."""
    if answer.refuse:
        return b"REFUSE " + (one_line(answer.refuse) or "refused").encode() + b"\n"
    if len(answer.xml) > MAX_XML:
        raise ValueError(f"XML of {len(answer.xml)} bytes is larger than {MAX_XML}")
    return b"OK %d\n" % len(answer.xml) + answer.xml
