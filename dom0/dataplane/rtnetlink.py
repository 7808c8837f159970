"""The few rtnetlink requests of a migration, as bytes (RFC 3549, linux/rtnetlink.h).

A dozen of them stand in a migration's way; made of objects, each costs milliseconds of a processor that copies the guest's memory.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

CREATE, EXCLUSIVE, REPLACE = 0x400, 0x200, 0x100
_REQUEST, _ACKNOWLEDGE, _ECHO = 0x1, 0x4, 0x8
_ERROR = 2
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_NESTED = 0x8000
_ANSWER_S = 5.0


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def link_message(index: int = 0) -> bytes:
    """``struct ifinfomsg``."""
    return struct.pack("=BxHiII", 0, 0, index, 0, 0)


def traffic_message(index: int, handle: int, parent: int, info: int = 0) -> bytes:
    """``struct tcmsg``."""
    return struct.pack("=BxHiIII", 0, 0, index, handle, parent, info)


def request(kind: int, flags: int, body: bytes) -> None:
    """Ask the kernel, in this thread's network namespace, and wait for its answer. OSError with its reason if it refuses."""
    answered, _ = _exchange(kind, _ACKNOWLEDGE | flags, body)
    if answered != _ERROR:
        raise OSError(f"the kernel's answer to rtnetlink request {kind} is of type {answered}")


def ask(kind: int, body: bytes) -> bytes:
    """What the kernel says about one thing: its message's body. OSError with its reason if it does not (ENOENT: there is none)."""
    # acknowledged too: of a qdisc of its own (noop, after an ingress qdisc was removed) the kernel says nothing at all
    answered, answer = _exchange(kind, _ECHO | _ACKNOWLEDGE, body)
    if answered == _ERROR:
        raise OSError(errno.ENOENT, f"rtnetlink request {kind}: {os.strerror(errno.ENOENT)}")
    return answer


def _exchange(kind: int, flags: int, body: bytes) -> tuple[int, bytes]:
    """Type and body of the answer. OSError if that is an error."""
    message = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_ANSWER_S)
        kernel.bind((0, 0))
        kernel.send(message)
        answer = kernel.recv(65536)
    length, answered, *_ = _HEADER.unpack_from(answer)
    if answered == _ERROR:
        (code,) = struct.unpack_from("=i", answer, _HEADER.size)
        if code:
            raise OSError(-code, f"rtnetlink request {kind}: {os.strerror(-code)}")
    return answered, answer[_HEADER.size : length]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each attribute in ``data``; what is cut off is left out."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if not 4 <= length <= len(data):
            return
        yield kind & ~_NESTED, data[4:length]
        data = data[-(-length // 4) * 4 :]


def text_of(data: bytes, kind: int) -> str:
    """The text that an attribute of that kind holds; "" if there is none."""
    return (
        next((value for one, value in attributes(data) if one == kind), b"")
        .rstrip(b"\0")
        .decode(errors="replace")
    )
