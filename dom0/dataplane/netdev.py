"""Small things asked of a network device: index, flags, queue length, counters. ioctl and sysfs; no netlink."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCGIFMTU, _SIOCSIFMTU = 0x8921, 0x8922
_SIOCSIFHWADDR, _ARPHRD_ETHER = 0x8924, 1
_SIOCGIFTXQLEN, _SIOCSIFTXQLEN = 0x8942, 0x8943
_IFF_MULTI_QUEUE = 0x0100
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_OVS_DATAPATH = "ovs-system"
"""The master of every port of the kernel's Open vSwitch."""
_GONE = (errno.ENODEV, errno.EINVAL)
"""Of a device that is being unregistered: sysfs still has its files, and ``netstat_show`` (net/core/net-sysfs.c) answers EINVAL."""


def index_of(name: str) -> int:
    """ifindex of a device; OSError if there is none of that name."""
    return socket.if_nametoindex(name)


def exists(name: str) -> bool:
    try:
        index_of(name)
    except OSError:
        return False
    return True


def is_linux_bridge_port(name: str) -> bool:
    return Path(f"/sys/class/net/{name}/brport").is_dir()


def bridge_only_floods(port: str) -> bool:
    """Whether the Linux bridge of this port learns no addresses: its ageing time is 0 (bridge(8))."""
    try:
        return Path(f"/sys/class/net/{port}/brport/bridge/bridge/ageing_time").read_text().strip() == "0"
    except OSError:
        return False


def has_only_guests(bridge: str) -> bool:
    """Whether nothing but VMs of this host is in a Linux bridge: nothing comes there from outside.

    By the names that libvirt gives their taps: another tap may be a VPN's.
    """
    try:
        ports = [one.name for one in Path(f"/sys/class/net/{bridge}/brif").iterdir()]
    except OSError:
        return False
    return all(one.startswith("vnet") and is_tap(one) for one in ports)


def is_tap(name: str) -> bool:
    """A tap or tun device: something in user space, as a hypervisor, is at its other end."""
    return Path(f"/sys/class/net/{name}/tun_flags").exists()


def may_have_queues(name: str) -> bool:
    """A tap that may have more queues than one, however many are attached now."""
    try:
        flags = int(Path(f"/sys/class/net/{name}/tun_flags").read_text(), 16)
    except OSError:
        return False
    return bool(flags & _IFF_MULTI_QUEUE)


def is_switched(name: str) -> bool:
    """Whether a bridge or an Open vSwitch of the kernel forwards to it. Of an Open vSwitch in user space the kernel knows nothing."""
    master = Path(f"/sys/class/net/{name}/master")
    return is_linux_bridge_port(name) or (master.is_symlink() and master.readlink().name == _OVS_DATAPATH)


def all_names() -> list[str]:
    """Every device of this network namespace."""
    return [name for _index, name in socket.if_nameindex()]


def _ioctl(name: str, request: int, payload: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        return bytes(
            fcntl.ioctl(control, request, struct.pack("16s", name.encode()) + payload.ljust(24, b"\0"))
        )


def get_mtu(name: str) -> int:
    return int(struct.unpack_from("i", _ioctl(name, _SIOCGIFMTU, b""), 16)[0])


def mac_of(name: str) -> bytes | None:
    """Its MAC address; None if there is no such device."""
    try:
        return bytes.fromhex(Path("/sys/class/net", name, "address").read_text().strip().replace(":", ""))
    except (OSError, ValueError):
        return None


def queues(name: str) -> int:
    """How many queues the kernel sends by: of a tap, those that its hypervisor has attached. 1 if there is no such interface."""
    return max(1, len(list(Path(f"/sys/class/net/{name}/queues").glob("tx-*"))))


def get_queue_length(name: str) -> int:
    """txqueuelen in packets: on a tap, how many wait for its reader."""
    return int(struct.unpack_from("i", _ioctl(name, _SIOCGIFTXQLEN, b""), 16)[0])


def set_mtu(name: str, mtu: int) -> None:
    """``mtu`` in bytes."""
    if get_mtu(name) != mtu:
        _ioctl(name, _SIOCSIFMTU, struct.pack("i", mtu))


def set_mac(name: str, mac: bytes) -> None:
    """``mac``: 6 bytes; the device is down."""
    _ioctl(name, _SIOCSIFHWADDR, struct.pack("=H6s", _ARPHRD_ETHER, mac))


def set_queue_length(name: str, packets: int) -> None:
    _ioctl(name, _SIOCSIFTXQLEN, struct.pack("i", packets))


def make_silent(name: str) -> None:
    """No IPv6 of the host's own on this device: it would mix the host's frames among the guest's."""
    with contextlib.suppress(FileNotFoundError):
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")


def bring_up(name: str, mtu: int | None = None) -> None:
    """Up and without ARP; ``mtu`` in bytes."""
    make_silent(name)
    if mtu is not None:
        set_mtu(name, mtu)
    _change_flags(name, _IFF_UP | _IFF_NOARP, 0)


def is_up(name: str) -> bool:
    (flags,) = struct.unpack_from("h", _ioctl(name, _SIOCGIFFLAGS, b""), 16)
    return bool(flags & _IFF_UP)


def set_up(name: str) -> None:
    _change_flags(name, _IFF_UP, 0)


def set_down(name: str) -> None:
    _change_flags(name, 0, _IFF_UP)


def _change_flags(name: str, add: int, remove: int) -> None:
    (flags,) = struct.unpack_from("h", _ioctl(name, _SIOCGIFFLAGS, b""), 16)
    _ioctl(name, _SIOCSIFFLAGS, struct.pack("h", (flags | add) & ~remove))


class TapCounters:
    """What a tap's reader has taken, and what did not fit: ``statistics/tx_packets`` and ``tx_dropped``.

    Files stay open: a reading costs microseconds, which matters between a diversion and a suspend. Of a tap that has gone, what was
    read last is told.
    """

    def __init__(self, name: str) -> None:
        base = f"/sys/class/net/{name}/statistics/"
        self._taken = os.open(base + "tx_packets", os.O_RDONLY)
        self._dropped = os.open(base + "tx_dropped", os.O_RDONLY)
        self._last: dict[int, int] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read both, in case the tap goes."""
        self.taken()
        self.dropped()

    def _read(self, counter: int) -> int:
        try:
            self._last[counter] = int(os.pread(counter, 32, 0))
        except OSError as error:
            if error.errno not in _GONE:
                raise
        return self._last[counter]

    def taken(self) -> int:
        """Frames the hypervisor has read from the tap since it was made."""
        return self._read(self._taken)

    def dropped(self) -> int:
        """Frames that found the tap's ring full since it was made."""
        return self._read(self._dropped)

    def close(self) -> None:
        os.close(self._taken)
        os.close(self._dropped)
