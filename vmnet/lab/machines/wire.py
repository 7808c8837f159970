"""Between a link's end in a machine's namespace and the machine's interface: a tap, and a bridge that only joins the two. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from vmnet.lab.topology import LINK_MTU

_QUEUE_PACKETS = 20_000
"""An emulated machine reads its taps in bursts."""
# Every link-local group (IEEE 802.1Q, table 8-1) but those that a bridge never forwards
_LINK_LOCAL = 0xFFF8


def tap(number: int) -> str:
    """The tap of a machine's ``number``-th link end."""
    return f"tap{number}"


def lines(ports: Iterable[str]) -> list[str]:
    """For ip(8). Each end is up, has no address, and its frames come out of the tap unchanged, and back."""
    found = []
    for number, port in enumerate(ports):
        wire = f"wire{number}"
        found += [
            f"tuntap add dev {tap(number)} mode tap",
            f"link add name {wire} type bridge stp_state 0 forward_delay 0 mcast_snooping 0 group_fwd_mask {_LINK_LOCAL}",
            f"link set dev {wire} mtu {LINK_MTU}",
            f"link set dev {tap(number)} mtu {LINK_MTU} txqueuelen {_QUEUE_PACKETS}",
        ]
        for end in (port, tap(number)):
            found += [
                f"link set dev {end} master {wire}",
                f"link set dev {end} type bridge_slave learning off",
                f"link set dev {end} up",
            ]
        found.append(f"link set dev {wire} up")
    return found
