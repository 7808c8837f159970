"""Hosts, taps and traffic for the tests of the data plane. All of it lives in namespaces that end with the test's own process."""

from __future__ import annotations

import copy
import ctypes
import fcntl
import functools
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_CLONE_NEWNET, _CLONE_NEWNS = 0x40000000, 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
_PR_SET_PDEATHSIG = 1
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x4000, 0x0100
ETHERTYPE = b"\x88\xb6"
GUEST = bytes.fromhex("525400000001")
CLIENT = bytes.fromhex("525400000099")
BROADCAST = b"\xff" * 6

_libc = ctypes.CDLL(None, use_errno=True)
Test = Callable[..., None]


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)


def isolated(limit_s: float = 60) -> Callable[[Test], Test]:
    """The test's body runs in a process with network and mounts of its own: whatever becomes of it, they go with it."""

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reader)
                _child(lambda: test(*args, **kwargs), writer)
            os.close(writer)
            _judge(child, reader, limit_s)

        return run

    return decorate


def _child(body: Callable[[], None], writer: int) -> None:
    status = 1
    try:
        die_with_parent()
        os.setpgid(0, 0)
        _check(_libc.unshare(_CLONE_NEWNS), "unshare")
        _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "private mounts")
        body()
        status = 0
    except BaseException:
        os.write(writer, traceback.format_exc().encode()[-60_000:])
    finally:
        sys.stdout.flush()
        os._exit(status)


def _judge(child: int, reader: int, limit_s: float) -> None:
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        late = not select.select([pipe], [], [], limit_s)[0]
        if late:
            os.killpg(child, signal.SIGKILL)
        said = b"".join(iter(lambda: pipe.read(65536), b"")).decode()
    _, status = os.waitpid(child, 0)
    if late:
        pytest.fail(f"not done within {limit_s:g} s", pytrace=False)
    if status:
        pytest.fail(said or f"ended with status {status}", pytrace=False)


def die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def ip(*words: object) -> None:
    subprocess.run(["ip", *map(str, words)], check=True)


_QUICK_NEIGHBOURS = {
    "base_reachable_time_ms": 100,
    "delay_first_probe_time": 0,
    "retrans_time_ms": 50,
    "gc_stale_time": 1,
}


def ask_neighbours_soon(device: str, version: int = 4) -> None:
    """This namespace's kernel wants to hear of who is behind ``device`` every 0.1 s, and gives up who does not answer in 0.15 s."""
    for name, value in _QUICK_NEIGHBOURS.items():
        Path(f"/proc/sys/net/ipv{version}/neigh/{device}/{name}").write_text(str(value))


def tc(*words: str) -> str:
    return subprocess.run(["tc", *words], check=True, capture_output=True, text=True).stdout


class Host:
    """A network namespace; ``with host:`` enters it (this thread), with /sys and /proc/sys/net to match."""

    def __init__(self) -> None:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._before: list[int] = []
        with self.sys():
            ip("link", "set", "lo", "up")
        _check(_libc.setns(before, _CLONE_NEWNET), "setns")
        os.close(before)

    @contextmanager
    def sys(self) -> Iterator[None]:
        _check(_libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None), "mount /sys")
        try:
            yield
        finally:
            _libc.umount2(b"/sys", _MNT_DETACH)

    def __enter__(self) -> Host:
        self._before.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        _check(_libc.setns(self._fd, _CLONE_NEWNET), "setns")
        _check(_libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None), "mount /sys")
        return self

    def __exit__(self, *_: object) -> None:
        _libc.umount2(b"/sys", _MNT_DETACH)
        before = self._before.pop()
        _check(_libc.setns(before, _CLONE_NEWNET), "setns")
        os.close(before)

    def devices(self) -> set[str]:
        with self:
            return {name for _, name in socket.if_nameindex()}


def veth(one: Host, one_name: str, other: Host, other_name: str) -> None:
    with one:
        ip(
            "link",
            "add",
            one_name,
            "type",
            "veth",
            "peer",
            "name",
            other_name,
            "netns",
            f"/proc/{os.getpid()}/fd/{other._fd}",
        )
        quiet(one_name)
    with other:
        quiet(other_name)


def quiet(device: str) -> None:
    """Up, without IPv6 of its own."""
    with open(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6", "w") as file:  # noqa: PTH123
        file.write("1")
    ip("link", "set", device, "up")


def bridge(name: str, *ports: str) -> None:
    ip("link", "add", name, "type", "bridge", "stp_state", 0, "mcast_snooping", 0)
    for port in ports:
        ip("link", "set", port, "master", name)
    quiet(name)


class Tap:
    """A tap and its reader, as QEMU is one. Without ``offload`` frames have no virtio_net_hdr and are small and summed."""

    def __init__(
        self,
        name: str,
        queue: int = 1000,
        offload: bool = False,
        up: bool = True,
        multi_queue: bool = False,
    ) -> None:
        self.name = name
        self._flags = (
            _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if offload else 0) | _IFF_MULTI_QUEUE * multi_queue
        )
        self.fd = self._queue()
        if offload:
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, 0x07)
        ip("link", "set", name, "txqueuelen", queue)
        if up:
            quiet(name)
        self.index = socket.if_nametoindex(name)

    def _queue(self) -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", self.name.encode(), self._flags))
        return fd

    def second(self) -> Tap:
        """Another queue of it (``multi_queue``)."""
        other = copy.copy(self)
        other.fd = self._queue()
        return other

    def read(self) -> bytes | None:
        try:
            return os.read(self.fd, 70_000)
        except BlockingIOError:
            return None

    def drain(self) -> list[bytes]:
        found = []
        while (frame := self.read()) is not None:
            found.append(frame)
        return found

    def write(self, frame: bytes) -> None:
        os.write(self.fd, frame)


class Guest:
    """Reads a tap until it is stopped; keeps what it got. It may be slow: ``pause_s`` after every frame."""

    def __init__(self, tap: Tap, pause_s: float = 0) -> None:
        self.got: list[bytes] = []
        self._tap = tap
        self._pause_s = pause_s
        self._going = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        waiter = select.poll()
        waiter.register(self._tap.fd, select.POLLIN)
        while self._going:
            if waiter.poll(5):
                frame = self._tap.read()
                if frame is not None:
                    self.got.append(frame)
                    if self._pause_s:
                        time.sleep(self._pause_s)

    def stop(self) -> int:
        """Takes nothing any more; returns when it stopped (CLOCK_REALTIME, ns)."""
        self._going = False
        self._thread.join()
        return time.time_ns()


def frame(number: int, stream: int = 0, to: bytes = GUEST, size: int = 60) -> bytes:
    return (to + CLIENT + ETHERTYPE + struct.pack("!BI", stream, number)).ljust(size, b"\0")


def numbers(frames: list[bytes], stream: int = 0) -> list[int]:
    """The numbers of a stream's frames, in the order of the frames."""
    found = []
    for one in frames:
        if one[12:14] == ETHERTYPE and one[14] == stream:
            found.append(int(struct.unpack_from("!I", one, 15)[0]))
    return found


class Packets:
    """Sends from a device, as a bridge would hand frames to it."""

    def __init__(self, device: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((device, 0))

    def send(self, one: bytes) -> None:
        try:
            self._socket.send(one)
        except OSError as error:
            if error.errno != 105:  # ENOBUFS: dropped on purpose
                raise


class Traffic:
    """A process that calls ``send(frame)`` with numbered frames at about ``rate`` a second, until stopped."""

    def __init__(
        self, send: Callable[[bytes], None], rate: int, make: Callable[[int], list[bytes]] | None = None
    ) -> None:
        self._result, writer = os.pipe()
        self._stop, stopper = os.pipe()
        self._stopper = stopper
        self._child = os.fork()
        if self._child == 0:
            os.close(stopper)
            die_with_parent()
            self._send_all(send, rate, make or (lambda number: [frame(number)]), writer)
        os.close(writer)

    def _send_all(
        self, send: Callable[[bytes], None], rate: int, make: Callable[[int], list[bytes]], writer: int
    ) -> None:
        status = 1
        try:
            began, number = time.monotonic(), 0
            while not select.select([self._stop], [], [], 0)[0]:
                due = int((time.monotonic() - began) * rate) + 1
                while number < min(due, number + 64):
                    for one in make(number):
                        send(one)
                    number += 1
                time.sleep(0.0002)
            os.write(writer, str(number).encode())
            status = 0
        finally:
            os._exit(status)

    def stop(self) -> int:
        """How many were sent."""
        os.write(self._stopper, b"x")
        said = os.read(self._result, 64)
        os.waitpid(self._child, 0)
        assert said, "the sender failed"
        return int(said)


def until(condition: Callable[[], Any], limit_s: float, what: str) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {limit_s} s"
        time.sleep(0.001)
