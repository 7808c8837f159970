"""An established TCP connection, moved from one host's kernel to another's; the other end does not notice (tcp(7), TCP_REPAIR).

The order of calls is CRIU's (soccr/soccr.c). A frozen socket lets nothing in, so that nothing is acknowledged that the state has not:
what the other end sends meanwhile it sends again. It stays frozen until it is melted here or dropped without a word.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import fcntl
import socket
import struct
import termios
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Any

from dom0.claim import field
from dom0.dataplane.grace import wait_for_frames_under_way
from dom0.fib.listeners import RECEIVE_BYTES
from vmnet.errors import PeerError

_TCP_REPAIR, _TCP_REPAIR_QUEUE, _TCP_QUEUE_SEQ, _TCP_REPAIR_OPTIONS, _TCP_REPAIR_WINDOW = 19, 20, 21, 22, 29
_TCP_TIMESTAMP, _TCP_INFO, _TCP_MAXSEG = 24, 11, 2
_SO_ATTACH_FILTER, _SO_DETACH_FILTER, _SO_RCVBUFFORCE = 26, 27, 33
_OFF, _ON = 0, 1
_RECV, _SEND = 1, 2
_SIOCOUTQ, _SIOCINQ = termios.TIOCOUTQ, termios.FIONREAD
_ESTABLISHED = 1
_HAS_TIMESTAMPS, _HAS_SACK, _HAS_WSCALE = 1, 2, 4
_OPT_MSS, _OPT_WSCALE, _OPT_SACK, _OPT_TIMESTAMP = 2, 3, 4, 8
_WINDOW = struct.Struct("=5I")
_INFO_BYTES = 60
_LAST_ACK_AT = 56
_MOST_QUEUE_BYTES = 8 << 20
_U32 = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class TcpState:
    """Sequence numbers are those after the queues; ``window`` is ``struct tcp_repair_window``; ``timestamp`` the clock of RFC 7323."""

    local: str
    local_port: int
    remote: str
    remote_port: int
    send_sequence: int
    receive_sequence: int
    unsent: bytes
    unread: bytes
    mss: int
    options: int
    send_scale: int
    receive_scale: int
    timestamp: int
    window: tuple[int, int, int, int, int]

    def to_json(self) -> dict[str, Any]:
        packed = {name: base64.b64encode(getattr(self, name)).decode() for name in ("unsent", "unread")}
        return {**asdict(self), **packed, "window": list(self.window)}


def ack_age_s(connection: socket.socket) -> float:
    """How long ago the other end acknowledged anything."""
    info = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_BYTES)
    return float(struct.unpack_from("=I", info, _LAST_ACK_AT)[0]) / 1e3


def freeze(connection: socket.socket) -> TcpState:
    """From here on the socket takes and sends nothing. OSError if it is not an established connection; then it goes on as it was."""
    shut(connection)
    wait_for_frames_under_way()
    return frozen(connection)


def shut(connection: socket.socket) -> None:
    """The socket takes nothing more; a packet that is under way in the kernel is let through to the end."""
    _let_in(connection, False)


def frozen(connection: socket.socket) -> TcpState:
    """Of a socket that is shut and to which nothing is under way any more; else as :func:`freeze`."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _ON)
        return _read(connection)
    except OSError:
        melt(connection)
        raise


def melt(connection: socket.socket) -> None:
    """It goes on here after all."""
    _let_in(connection, True)
    connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _OFF)


def drop(connection: socket.socket) -> None:
    """A frozen socket goes, without FIN or RST."""
    connection.close()


def _let_in(connection: socket.socket, everything: bool) -> None:
    """A socket filter (classic BPF) that has room for no byte, or none."""
    if everything:
        connection.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        return
    code = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(code)))


def _read(connection: socket.socket) -> TcpState:
    info = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_BYTES)
    if info[0] != _ESTABLISHED:
        raise OSError(107, f"a connection in state {info[0]} cannot be moved")
    local, local_port, *_ = connection.getsockname()
    remote, remote_port, *_ = connection.getpeername()
    unread = _peek(connection, _RECV, _SIOCINQ)
    receive_sequence = _number(connection, _TCP_QUEUE_SEQ)
    unsent = _peek(connection, _SEND, _SIOCOUTQ)
    send_sequence = _number(connection, _TCP_QUEUE_SEQ)
    window = _WINDOW.unpack(connection.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_WINDOW, _WINDOW.size))
    return TcpState(
        *(str(local).split("%")[0], local_port, str(remote).split("%")[0], remote_port),
        *(send_sequence, receive_sequence, unsent, unread),
        _number(connection, _TCP_MAXSEG),
        *(info[5] & 7, info[6] & 15, info[6] >> 4),
        _number(connection, _TCP_TIMESTAMP),
        window,
    )


def _number(connection: socket.socket, option: int) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, option) & _U32


def _peek(connection: socket.socket, queue: int, count: int) -> bytes:
    """What is in a queue; it is chosen from here on."""
    connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_QUEUE, queue)
    size = struct.unpack("=i", fcntl.ioctl(connection, count, bytes(4)))[0]
    if size > _MOST_QUEUE_BYTES:
        raise OSError(7, f"{size} bytes are in a queue")
    data = connection.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT) if size else b""
    if len(data) != size:
        raise OSError(5, f"{len(data)} of {size} bytes of a queue")
    return data


def parse(message: Mapping[str, Any]) -> TcpState:
    """PeerError if any part is missing or out of bounds."""
    window = message.get("window")
    if not isinstance(window, list) or len(window) != 5:
        raise PeerError("the peer's 'window' is no TCP window")
    parts = [field({"window": one}, "window", int, 0, _U32) for one in window]
    return TcpState(
        *(_address(message, "local"), field(message, "local_port", int, 1, 65535)),
        *(_address(message, "remote"), field(message, "remote_port", int, 1, 65535)),
        field(message, "send_sequence", int, 0, _U32),
        field(message, "receive_sequence", int, 0, _U32),
        *(data_field(message, "unsent"), data_field(message, "unread")),
        field(message, "mss", int, 48, 65535),
        field(message, "options", int, 0, 7),
        *(field(message, "send_scale", int, 0, 14), field(message, "receive_scale", int, 0, 14)),
        field(message, "timestamp", int, 0, _U32),
        (parts[0], parts[1], parts[2], parts[3], parts[4]),
    )


def _address(message: Mapping[str, Any], name: str) -> str:
    try:
        return str(ip_address(field(message, name, str)))
    except ValueError:
        raise PeerError(f"the peer's '{name}' is no IP address") from None


def data_field(message: Mapping[str, Any], name: str, most_bytes: int = _MOST_QUEUE_BYTES) -> bytes:
    """Bytes in base64. PeerError."""
    value = message.get(name)
    if not isinstance(value, str) or len(value) > most_bytes * 4 // 3 + 4:
        raise PeerError(f"the peer's message has no usable '{name}'")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise PeerError(f"the peer's '{name}' is not base64") from None


def thaw(state: TcpState, device: str) -> socket.socket:
    """The connection, in the calling thread's network namespace, bound to ``device``. OSError if the kernel will not have it."""
    family = socket.AF_INET6 if ":" in state.local else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _ON)
        _establish(connection, state, socket.if_nametoindex(device))
        _set_options(connection, state)
        _fill(connection, state)
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_WINDOW, _WINDOW.pack(*state.window))
        # with the window probe that turning it off sends, the other end learns that we are here
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _OFF)
        # turning it off forbids it: a daemon that starts again could not listen on the port while this connection lingers
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except BaseException:
        connection.close()
        raise
    return connection


def _establish(connection: socket.socket, state: TcpState, scope: int) -> None:
    connection.setsockopt(
        socket.SOL_SOCKET, _SO_RCVBUFFORCE, max(len(state.unread) + (1 << 20), RECEIVE_BYTES)
    )
    for queue, sequence in (
        (_RECV, state.receive_sequence - len(state.unread)),
        (_SEND, state.send_sequence - len(state.unsent)),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_QUEUE, queue)
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_QUEUE_SEQ, struct.pack("=I", sequence & _U32))
    tail: tuple[int, ...] = (0, scope) if ":" in state.local else ()
    connection.bind((state.local, state.local_port, *tail))
    connection.connect((state.remote, state.remote_port, *tail))


def _set_options(connection: socket.socket, state: TcpState) -> None:
    options = [(_OPT_MSS, state.mss)]
    if state.options & _HAS_WSCALE:
        options.append((_OPT_WSCALE, state.send_scale | state.receive_scale << 16))
    if state.options & _HAS_SACK:
        options.append((_OPT_SACK, 0))
    if state.options & _HAS_TIMESTAMPS:
        options.append((_OPT_TIMESTAMP, 0))
    packed = b"".join(struct.pack("=II", *one) for one in options)
    connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_OPTIONS, packed)
    if state.options & _HAS_TIMESTAMPS:
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_TIMESTAMP, struct.pack("=I", state.timestamp))


def _fill(connection: socket.socket, state: TcpState) -> None:
    for queue, data in ((_RECV, state.unread), (_SEND, state.unsent)):
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_QUEUE, queue)
        # the kernel takes a bounded piece at a time
        while data:
            data = data[connection.send(data[: 16 << 10]) :]
