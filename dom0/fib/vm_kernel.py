"""What the router's kernel has and does beside its routes, as its agent tells: links, forwarding, queueing disciplines, netfilter."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dom0.fib import link, netfilter
from dom0.fib.link import VmLink
from dom0.fib.message import (
    DELLINK,
    DELNETCONF,
    DELQDISC,
    INET,
    INET6,
    NETFILTER_BEGINS,
    NETFILTER_COMPLETE,
    NEWCHAIN,
    NEWLINK,
    NEWNETCONF,
    NEWQDISC,
    U32,
    MalformedError,
    attribute,
    attributes,
    body_of,
    message,
)

KINDS = frozenset(
    {
        *(NEWLINK, DELLINK, NEWQDISC, DELQDISC, NEWNETCONF, DELNETCONF),
        *(NETFILTER_BEGINS, NETFILTER_COMPLETE, NEWCHAIN),
    }
)
_MOST = 4096
_TCMSG = struct.Struct("=BxHiIII")
_TCA_KIND = 1
_NETCONF_BODY_BYTES = 4  # struct netconfmsg, one byte, padded
_NETCONF_INDEX, _NETCONF_FORWARDING = 1, 2  # linux/netconf.h
_S32 = struct.Struct("=i")
_IPTABLES, _IP6TABLES, _UNREADABLE = 1, 2, 4
_VERSIONS = {INET: 4, INET6: 6}


@dataclass(frozen=True)
class VmKernel:
    """``told``: the agent tells of it at all. ``forwarding``: by IP version and ifindex (-1: all), where the kernel said so.

    ``qdiscs``: ifindex and kind. ``filters``: what of netfilter data packets pass, in words.
    """

    told: bool = False
    links: tuple[VmLink, ...] = ()
    forwarding: dict[tuple[int, int], bool] = field(default_factory=dict)
    qdiscs: tuple[tuple[int, str], ...] = ()
    filters: tuple[str, ...] = ()


class VmKernelState:
    """Messages in, :attr:`view` out; and messages again, of which another host makes the same state."""

    def __init__(self) -> None:
        self.begin(False)

    def begin(self, told: bool) -> None:
        """A full state follows. ``told``: with all that is beside the routes."""
        self.told = told
        self._links: dict[int, VmLink] = {}
        self._qdiscs: dict[tuple[int, int, int], str] = {}
        self._forwarding: dict[tuple[int, int], bool] = {}
        self.filters: tuple[str, ...] = ()
        self._filters_coming: list[str] | None = None

    def feed(self, kind: int, data: bytes) -> VmLink | None:
        """A message of one of ``KINDS``; the link, if it is about one. Raises MalformedError, RefusedMessageError."""
        told = None
        if kind in (NEWLINK, DELLINK):
            told = link.parse(data)
            self._link(told)
        elif kind in (NEWQDISC, DELQDISC):
            self._qdisc(kind == NEWQDISC, data)
        elif kind in (NEWNETCONF, DELNETCONF):
            self._netconf(kind == NEWNETCONF, data)
        else:
            self._netfilter(kind, data)
        if max(len(self._links), len(self._qdiscs), len(self._forwarding)) > _MOST:
            raise MalformedError(f"more than {_MOST} links, queueing disciplines or settings")
        return told

    def _link(self, told: VmLink) -> None:
        if not told.gone:
            self._links[told.index] = told
            return
        self._links.pop(told.index, None)
        self._qdiscs = {key: name for key, name in self._qdiscs.items() if key[0] != told.index}
        for version in _VERSIONS.values():
            self._forwarding.pop((version, told.index), None)

    def _qdisc(self, new: bool, data: bytes) -> None:
        body_of(data, _TCMSG.size)
        _family, _pad, index, handle, parent, _info = _TCMSG.unpack_from(data, 16)
        key = index, handle, parent
        if not new:
            self._qdiscs.pop(key, None)
            return
        name = dict(attributes(data, 16 + _TCMSG.size)).get(_TCA_KIND, b"").rstrip(b"\0")[:15]
        if not name.isascii() or not name.decode().isprintable():
            raise MalformedError("a queueing discipline without a usable name")
        self._qdiscs[key] = name.decode()

    def _netconf(self, new: bool, data: bytes) -> None:
        body_of(data, _NETCONF_BODY_BYTES)
        values = dict(attributes(data, 16 + _NETCONF_BODY_BYTES))
        version = _VERSIONS.get(data[16])
        if version is None or len(values.get(_NETCONF_INDEX, b"")) != 4:
            return
        key = version, _S32.unpack(values[_NETCONF_INDEX])[0]
        if not new:
            self._forwarding.pop(key, None)
        elif len(values.get(_NETCONF_FORWARDING, b"")) == 4:
            self._forwarding[key] = bool(_S32.unpack(values[_NETCONF_FORWARDING])[0])

    def _netfilter(self, kind: int, data: bytes) -> None:
        """All of it at a time: what there was holds until what there is now is complete."""
        if kind == NETFILTER_BEGINS:
            body_of(data, 4)
            self._filters_coming = list(_flags_in_words(U32.unpack_from(data, 16)[0]))
        elif self._filters_coming is None:
            raise MalformedError("a part of netfilter without its beginning")
        elif kind == NETFILTER_COMPLETE:
            self.filters, self._filters_coming = tuple(self._filters_coming), None
        elif (chain := netfilter.parse(data)).changes_packets:
            if len(self._filters_coming) >= _MOST:
                raise MalformedError(f"more than {_MOST} chains with rules")
            self._filters_coming.append(f"nftables chain {chain} ({chain.hook}) has rules or drops")

    @property
    def view(self) -> VmKernel:
        return VmKernel(
            self.told,
            tuple(self._links.values()),
            dict(self._forwarding),
            tuple((index, name) for (index, _handle, _parent), name in self._qdiscs.items()),
            self.filters,
        )

    def messages(self) -> list[bytes]:
        """All but the filters, for :meth:`restore` on another host."""
        return [
            *(link.to_message(told) for told in self._links.values()),
            *(_qdisc_message(*key, name) for key, name in self._qdiscs.items()),
            *(_netconf_message(*key, on) for key, on in self._forwarding.items()),
        ]

    def restore(self, told: bool, messages: Sequence[bytes], filters: Sequence[str]) -> None:
        """Raises MalformedError, RefusedMessageError."""
        self.begin(told)
        for data in messages:
            kind = kind_of(data)
            if kind not in (NEWLINK, NEWQDISC, NEWNETCONF):
                raise MalformedError(f"a message of type {kind} in the state of a router's kernel")
            self.feed(kind, data)
        self.filters = tuple(filters)


def kind_of(data: bytes) -> int:
    """Its netlink type. Raises MalformedError if it is too short to have one."""
    if len(data) < 16:
        raise MalformedError(f"a message of {len(data)} bytes")
    return int(U32.unpack_from(data, 4)[0] & 0xFFFF)


def _qdisc_message(index: int, handle: int, parent: int, name: str) -> bytes:
    body = _TCMSG.pack(0, 0, index, handle, parent, 0)
    return message(NEWQDISC, 0, body + attribute(_TCA_KIND, name.encode() + b"\0"))


def _netconf_message(version: int, index: int, on: bool) -> bytes:
    body = bytes([INET if version == 4 else INET6, 0, 0, 0]) + attribute(_NETCONF_INDEX, _S32.pack(index))
    return message(NEWNETCONF, 0, body + attribute(_NETCONF_FORWARDING, _S32.pack(on)))


def _flags_in_words(flags: int) -> Iterator[str]:
    for flag, words in (
        (_IPTABLES, "iptables has rules"),
        (_IP6TABLES, "ip6tables has rules"),
        (_UNREADABLE, "nftables cannot be read"),
    ):
        if flags & flag:
            yield words
