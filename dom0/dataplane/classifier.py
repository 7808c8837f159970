"""Attaches a program to a device's ingress or egress, and takes it off again: by tcx, or by a clsact qdisc before Linux 6.6.

Other programs at the same place stay, and see what ours lets pass. A qdisc ``ingress`` (libvirt's limit of what a guest sends, Open
vSwitch's policing) has the place of a clsact: where tcx is not there, the two cannot be together.
"""

from __future__ import annotations

import errno
import os
import socket
from enum import IntEnum

from dom0.dataplane import bpf_syscall, netdev, rtnetlink, tcx

_NEW_QDISC, _GET_QDISC, _NEW_FILTER, _DELETE_FILTER, _GET_FILTER = 36, 38, 44, 45, 46
_OURS = "vmnet"
"""How the names of all programs of ours begin; at one place there is one."""
_KIND, _OPTIONS = 1, 2
_BPF_CLASS, _BPF_FD, _BPF_NAME, _BPF_FLAGS = 3, 6, 7, 8
_DIRECT_ACTION = 1
_CLSACT_HANDLE, _CLSACT = 0xFFFF0000, 0xFFFFFFF1
_PRIORITY = 1
_ETH_P_ALL = 3
_TRAFFIC_MESSAGE_BYTES = 20
_GONE = (errno.ENOENT, errno.EINVAL, errno.ENODEV)


class Direction(IntEnum):
    """The values are a clsact's."""

    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3

    @property
    def by_tcx(self) -> int:
        return tcx.INGRESS if self is Direction.INGRESS else tcx.EGRESS


def hindrance(device: str) -> str:
    """Why no program can be attached to ``device``, and what to do; "" if nothing is known that speaks against it."""
    if tcx.works() or _ingress_qdisc(device) in ("", "clsact"):
        return ""
    return (
        f"{device} has a qdisc 'ingress' (a limit of what the VM sends, or Open vSwitch's policing), and before Linux 6.6 that takes "
        f"the place of vmnet's gate: take the limit away until the VM has moved (`virsh domiftune VM {device} --outbound 0`)"
    )


def _ingress_qdisc(device: str) -> str:
    """Its kind; "" without one."""
    try:
        answer = rtnetlink.ask(_GET_QDISC, rtnetlink.traffic_message(netdev.index_of(device), 0, _CLSACT))
    except OSError as error:
        if error.errno in _GONE:
            return ""
        raise
    return rtnetlink.text_of(answer[_TRAFFIC_MESSAGE_BYTES:], _KIND)


def is_ready(device: str) -> bool:
    """Whether :func:`attach` costs no frame there."""
    return tcx.works() or _ingress_qdisc(device) == "clsact"


def make_ready(device: str) -> None:
    """So that :func:`attach` later costs no frame. OSError if a program cannot be attached there.

    Without tcx a clsact qdisc is needed. The kernel takes a device out of service for a few milliseconds while a qdisc is added,
    whichever it is (``qdisc_graft`` in net/sched/sch_api.c), and drops what it is given meanwhile. So this is done when a guest
    starts, not when it migrates.
    """
    if tcx.works():
        return
    message = rtnetlink.traffic_message(netdev.index_of(device), _CLSACT_HANDLE, _CLSACT)
    flags = rtnetlink.CREATE | rtnetlink.EXCLUSIVE  # refused, and nothing touched, if there is one
    try:
        rtnetlink.request(_NEW_QDISC, flags, message + rtnetlink.text(_KIND, "clsact"))
    except FileExistsError:
        if reason := hindrance(device):
            raise OSError(errno.EBUSY, reason) from None


def _filter(device: str, direction: Direction) -> bytes:
    """Which filter is meant."""
    info = _PRIORITY << 16 | socket.htons(_ETH_P_ALL)
    return rtnetlink.traffic_message(netdev.index_of(device), 1, direction, info) + rtnetlink.text(
        _KIND, "bpf"
    )


def attach(device: str, direction: Direction, program_fd: int, name: str) -> None:
    """``program_fd`` decides on every frame from now on; OSError if the kernel refuses."""
    if tcx.works():
        tcx.attach(netdev.index_of(device), direction.by_tcx, program_fd, _OURS)
        return
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


def is_attached(device: str, direction: Direction) -> bool:
    """Whether a program of ours is there: others may have taken it away."""
    try:
        if tcx.works():
            return tcx.is_attached(netdev.index_of(device), direction.by_tcx, _OURS)
        answer = rtnetlink.ask(_GET_FILTER, _filter(device, direction))
    except OSError as error:
        if error.errno in _GONE or not netdev.exists(device):
            return False
        raise
    found = dict(rtnetlink.attributes(answer[_TRAFFIC_MESSAGE_BYTES:]))
    return rtnetlink.text_of(found.get(_OPTIONS, b""), _BPF_NAME).startswith(_OURS)


def load_and_attach(device: str, direction: Direction, code: bytes, name: str) -> None:
    """``code`` (eBPF instructions) decides from now on, in place of what did; ``name`` is what tools show. OSError if refused."""
    program = bpf_syscall.load_classifier(code, name)
    try:
        attach(device, direction, program, _OURS)
    finally:
        os.close(program)  # the device keeps it


def detach(device: str, direction: Direction) -> None:
    """Nothing happens if the device or the program has gone already. A daemon of an older version may have made a filter."""
    if not netdev.exists(device):
        return
    try:
        if tcx.works():
            tcx.detach(netdev.index_of(device), direction.by_tcx, _OURS)
        rtnetlink.request(_DELETE_FILTER, 0, _filter(device, direction))
    except OSError as error:
        if error.errno not in _GONE:
            raise
