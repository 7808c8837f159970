"""The stream of an FPM session, cut into rtnetlink messages. Knows no socket.

A frame is ``!BBH``: version 1, type 1 (netlink), length with this header (FRR, fpm/fpm.h); then one or more netlink messages.
FRR writes an update as one frame with a DELROUTE and a NEWROUTE.
"""

from __future__ import annotations

import struct

from dom0.fib.message import U32, MalformedError, split

_FRAME = struct.Struct("!BBH")
_LEAST = 4 + 16
MOST_BYTES = 0xFFFF


def frame(message: bytes) -> bytes:
    """One message as a frame."""
    return _FRAME.pack(1, 1, 4 + len(message)) + message


class Deframer:
    """``rest``: the frame of which only a part is here, less than 64 KiB."""

    def __init__(self, rest: bytes = b"") -> None:
        self.rest = rest

    def feed(self, data: bytes) -> list[bytes]:
        """Whole messages, in order; each has the length that its header says. Raises MalformedError: nothing after it can be told."""
        buffer = self.rest + data
        found: list[bytes] = []
        offset, end = 0, len(buffer)
        while end - offset >= 4:
            version, kind, length = _FRAME.unpack_from(buffer, offset)
            if version != 1 or kind != 1 or length < _LEAST:
                raise MalformedError(f"a frame of version {version}, type {kind}, {length} bytes")
            after = offset + length
            if after > end:
                break
            one = buffer[offset + 4 : after]
            if U32.unpack_from(one)[0] == length - 4:
                found.append(one)
            else:
                found.extend(split(one))
            offset = after
        self.rest = buffer[offset:]
        return found
