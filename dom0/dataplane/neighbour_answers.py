"""Answers who asks for a guest that stands still, in its name: ARP (RFC 826), neighbour solicitations (RFC 4861).

A neighbour's kernel asks a station that it has not heard for a while: three times, a second apart. It gives up a station that does not
answer, and drops what is for it: no hold queue ever gets that. The answer says nothing new; the neighbour's entry stays as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from controller_bridge.core.neighbours import answer as neighbour_answer
from dom0.dataplane.listener import Listener
from dom0.dataplane.packet_filter import JEQ, LDB, LDH, RET, Filter

_ARP, _IPV6, _ICMPV6, _SOLICITATION = 0x0806, 0x86DD, 58, 135
_ARP_REQUEST = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
_ARP_BYTES, _SOLICITATION_BYTES = 42, 78
_MOST_A_TURN = 64
_QUESTIONS: Filter = (
    (LDH, 0, 0, 12),
    (JEQ, 0, 2, _ARP),
    (LDH, 0, 0, 20),
    (JEQ, 5, 6, 1),
    (JEQ, 0, 5, _IPV6),
    (LDB, 0, 0, 20),
    (JEQ, 0, 3, _ICMPV6),
    (LDB, 0, 0, 54),
    (JEQ, 0, 1, _SOLICITATION),
    (RET, 0, 0, 256),
    (RET, 0, 0, 0),
)
"""ARP requests and neighbour solicitations, untagged."""
Addresses = Container[IPv4Address | IPv6Address]


def answer(question: bytes, mac: bytes, addresses: Addresses) -> bytes | None:
    """What the guest with ``mac`` and ``addresses`` would answer to that frame; None if nothing. Pure."""
    if len(question) >= _ARP_BYTES and question[12:22] == struct.pack("!H", _ARP) + _ARP_REQUEST:
        return _arp_answer(question, mac, addresses)
    if len(question) >= _SOLICITATION_BYTES and question[12:14] == struct.pack("!H", _IPV6):
        return _advertisement(question, mac, addresses)
    return None


def _arp_answer(question: bytes, mac: bytes, addresses: Addresses) -> bytes | None:
    asker, asker_has, wanted = question[22:28], question[28:32], IPv4Address(question[38:42])
    if asker[0] & 1 or asker == mac or wanted not in addresses or asker_has == wanted.packed:
        return None  # the last: it says that it has the address itself
    return neighbour_answer(wanted, mac, asker, IPv4Address(asker_has))


def _advertisement(question: bytes, mac: bytes, addresses: Addresses) -> bytes | None:
    hops, kind, source = question[21], question[54:56], IPv6Address(question[22:38])
    wanted, asker = IPv6Address(question[62:78]), question[6:12]
    if question[20] != _ICMPV6 or hops != 255 or kind != bytes((_SOLICITATION, 0)):
        return None
    if asker[0] & 1 or asker == mac or wanted not in addresses or source.is_multicast:
        return None
    return neighbour_answer(wanted, mac, asker, source, may_route=True)


class NeighbourAnswers:
    """``devices``: what is for the guest leaves by them. ``addresses``: which it was seen to use."""

    def __init__(self, mac: bytes, addresses: Addresses, devices: Iterable[str]) -> None:
        self._mac, self._addresses = mac, addresses
        self._listeners: list[Listener] = []
        for device in devices:
            with suppress(OSError):  # it has gone, or is not there yet: the other one tells
                self._listeners.append(Listener(device, _QUESTIONS))

    def turn(self) -> list[bytes]:
        """Answers to what was asked since the last call; each once, at most 64 a device."""
        heard = (listener.drain(_MOST_A_TURN) for listener in self._listeners)
        questions = dict.fromkeys(one for frames in heard for one in frames)
        found = (answer(one, self._mac, self._addresses) for one in questions)
        return [one for one in found if one is not None]

    def close(self) -> None:
        for one in self._listeners:
            one.close()
