"""A chain of nftables in the router, as its kernel tells of it (linux/netfilter/nf_tables.h, enum nft_chain_attributes). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dom0.fib.message import attributes, body_of, number, shown

_NFGENMSG = struct.Struct("=BBH")
_BE32 = struct.Struct("!I")
_TABLE, _NAME, _HOOK, _POLICY, _USE = 1, 3, 4, 5, 6
_HOOK_NUMBER = 1
_INET, _IPV4, _NETDEV, _IPV6 = 1, 2, 5, 10  # NFPROTO_*
_FAMILIES = {_INET: "inet", _IPV4: "ip", _NETDEV: "netdev", _IPV6: "ip6"}
_HOOKS = {0: "prerouting", 2: "forward", 4: "postrouting", 5: "ingress"}
_NETDEV_HOOKS = {0: "ingress", 1: "egress"}
_DROP = 0
_CHAIN = "a chain"
_LONGEST_NAME = 32


@dataclass(frozen=True, slots=True)
class Chain:
    """``hook``: where data packets pass it, empty if they do not; ``rules``: how many it has; ``drops``: its policy is to drop."""

    family: str
    table: str
    name: str
    hook: str
    rules: int
    drops: bool

    @property
    def changes_packets(self) -> bool:
        """Whether a packet that the VM forwards may be dropped or changed by it."""
        return bool(self.hook) and (self.rules > 0 or self.drops)

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


def parse(data: bytes) -> Chain:
    """Of a message NFT_MSG_NEWCHAIN. Raises MalformedError."""
    body_of(data, _NFGENMSG.size)
    family, _version, _resource = _NFGENMSG.unpack_from(data, 16)
    values = dict(attributes(data, 16 + _NFGENMSG.size))
    hook = ""
    if _HOOK in values:
        at = number(dict(attributes(values[_HOOK], 0)), _HOOK_NUMBER, _BE32, _CHAIN)
        hooks = _NETDEV_HOOKS if family == _NETDEV else _HOOKS if family in _FAMILIES else {}
        hook = hooks.get(at, "")
    return Chain(
        _FAMILIES.get(family, str(family)),
        shown(values.get(_TABLE, b""), _LONGEST_NAME),
        shown(values.get(_NAME, b""), _LONGEST_NAME),
        hook,
        number(values, _USE, _BE32, _CHAIN),
        _POLICY in values and number(values, _POLICY, _BE32, _CHAIN) == _DROP,
    )
