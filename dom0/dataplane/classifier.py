"""Hangs a program on a device's ingress or egress (traffic control, clsact), and takes it off again."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from enum import IntEnum

from dom0.dataplane import bpf_syscall, netdev, rtnetlink

_NEW_QDISC, _NEW_FILTER, _DELETE_FILTER = 36, 44, 45
_KIND, _OPTIONS = 1, 2
_BPF_CLASS, _BPF_FD, _BPF_NAME, _BPF_FLAGS = 3, 6, 7, 8
_DIRECT_ACTION = 1
_CLSACT_HANDLE, _CLSACT = 0xFFFF0000, 0xFFFFFFF1
_PRIORITY = 1
_ETH_P_ALL = 3
_GONE = (errno.ENOENT, errno.EINVAL, errno.ENODEV)


class Direction(IntEnum):
    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3


def make_ready(device: str) -> None:
    """Add the clsact qdisc that :func:`attach` needs, if it is not there.

    The kernel takes a device out of service for a few milliseconds while a qdisc is added, whichever it is (``qdisc_graft`` in
    net/sched/sch_api.c), and drops what it is given meanwhile. So this is done when a guest starts, not when it migrates.
    """
    message = rtnetlink.traffic_message(netdev.index_of(device), _CLSACT_HANDLE, _CLSACT)
    flags = rtnetlink.CREATE | rtnetlink.EXCLUSIVE  # refused, and nothing touched, if there is one
    with contextlib.suppress(FileExistsError):
        rtnetlink.request(_NEW_QDISC, flags, message + rtnetlink.text(_KIND, "clsact"))


def _filter(device: str, direction: Direction) -> bytes:
    """Which filter is meant."""
    info = _PRIORITY << 16 | socket.htons(_ETH_P_ALL)
    return rtnetlink.traffic_message(netdev.index_of(device), 1, direction, info) + rtnetlink.text(
        _KIND, "bpf"
    )


def attach(device: str, direction: Direction, program_fd: int, name: str) -> None:
    """``program_fd`` decides on every frame from now on; OSError if the kernel refuses."""
    make_ready(device)
    options = rtnetlink.nested(
        _OPTIONS,
        rtnetlink.u32(_BPF_CLASS, 1),
        rtnetlink.u32(_BPF_FD, program_fd),
        rtnetlink.text(_BPF_NAME, name),
        rtnetlink.u32(_BPF_FLAGS, _DIRECT_ACTION),
    )
    body = _filter(device, direction) + options
    rtnetlink.request(_NEW_FILTER, rtnetlink.CREATE | rtnetlink.REPLACE, body)


def load_and_attach(device: str, direction: Direction, code: bytes, name: str) -> None:
    """``code`` (eBPF instructions) decides from now on, in place of what did; ``name`` is what tools show. OSError if refused."""
    program = bpf_syscall.load_classifier(code, name)
    try:
        attach(device, direction, program, "vmnet")
    finally:
        os.close(program)  # the filter keeps it


def detach(device: str, direction: Direction) -> None:
    """Nothing happens if the device or the program has gone already."""
    if not netdev.exists(device):
        return
    try:
        rtnetlink.request(_DELETE_FILTER, 0, _filter(device, direction))
    except OSError as error:
        if error.errno not in _GONE:
            raise
