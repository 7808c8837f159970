"""Hangs a program on a device's ingress or egress (traffic control, clsact), and takes it off again."""

from __future__ import annotations

from enum import IntEnum

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from dom0.dataplane import netdev

_PRIORITY = 1
_ETH_P_ALL = 3
_EEXIST, _ENOENT, _EINVAL, _ENODEV = 17, 2, 22, 19


class Direction(IntEnum):
    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3


def make_ready(device: str) -> None:
    """Add the clsact qdisc that :func:`attach` needs, if it is not there.

    The kernel takes a device out of service for a few milliseconds while a qdisc is added, whichever it is (``qdisc_graft`` in
    net/sched/sch_api.c), and drops what it is given meanwhile. So this is done when a guest starts, not when it migrates.
    """
    with IPRoute() as netlink:
        _make_ready(netlink, netdev.index_of(device))


def _make_ready(netlink: IPRoute, index: int) -> None:
    if any(dict(one["attrs"]).get("TCA_KIND") == "clsact" for one in netlink.get_qdiscs(index)):
        return
    try:
        netlink.tc("add", "clsact", index)
    except NetlinkError as error:
        if error.code != _EEXIST:
            raise


def attach(device: str, direction: Direction, program_fd: int, name: str) -> None:
    """``program_fd`` decides on every frame from now on; NetlinkError if the kernel refuses."""
    index = netdev.index_of(device)
    with IPRoute() as netlink:
        _make_ready(netlink, index)
        netlink.tc(
            "replace-filter",
            "bpf",
            index,
            parent=int(direction),
            prio=_PRIORITY,
            protocol=_ETH_P_ALL,
            handle=1,
            fd=program_fd,
            name=name,
            direct_action=True,
            classid=1,
        )


def detach(device: str, direction: Direction) -> None:
    """Nothing happens if the device or the program has gone already."""
    if not netdev.exists(device):
        return
    with IPRoute() as netlink:
        try:
            netlink.tc(
                "del-filter",
                "bpf",
                netdev.index_of(device),
                parent=int(direction),
                prio=_PRIORITY,
                protocol=_ETH_P_ALL,
                handle=1,
            )
        except NetlinkError as error:
            if error.code not in (_ENOENT, _EINVAL, _ENODEV):
                raise
