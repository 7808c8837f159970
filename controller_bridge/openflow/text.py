"""Matches and flows as people write and read them: the specification's field names, or Open vSwitch's short ones. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Final

from controller_bridge.openflow import action
from controller_bridge.openflow.flow import Flow
from controller_bridge.openflow.match import SIZES, Field, Match, Value
from vmnet.errors import ConfigError

_PROTOCOLS: Final[Mapping[str, Mapping[str, int]]] = {
    "ip": {"eth_type": 0x0800},
    "ipv6": {"eth_type": 0x86DD},
    "arp": {"eth_type": 0x0806},
    "tcp": {"eth_type": 0x0800, "ip_proto": 6},
    "udp": {"eth_type": 0x0800, "ip_proto": 17},
    "icmp": {"eth_type": 0x0800, "ip_proto": 1},
    "tcp6": {"eth_type": 0x86DD, "ip_proto": 6},
    "udp6": {"eth_type": 0x86DD, "ip_proto": 17},
}
_SHORT: Final = {
    "dl_src": "eth_src",
    "dl_dst": "eth_dst",
    "dl_type": "eth_type",
    "nw_src": "ipv4_src",
    "nw_dst": "ipv4_dst",
    "nw_proto": "ip_proto",
    "tp_src": "udp_src",
    "tp_dst": "udp_dst",
}
_ADDRESSES: Final = (
    Field.IPV4_SRC,
    Field.IPV4_DST,
    Field.ARP_SPA,
    Field.ARP_TPA,
    Field.IPV6_SRC,
    Field.IPV6_DST,
    Field.ND_TARGET,
)
_MACS: Final = (Field.ETH_SRC, Field.ETH_DST, Field.ARP_SHA, Field.ND_SLL, Field.ND_TLL)
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}\Z")


def match_of(words: Iterable[str]) -> Match:
    """``eth_dst=52:54:00:00:00:01``, ``nw_dst=10.0.0.0/24``, ``ip`` … ConfigError for what is none."""
    fields: dict[str, Value] = {}
    for word in words:
        if word in _PROTOCOLS:
            fields |= _PROTOCOLS[word]
            continue
        name, given, text = word.partition("=")
        name = _SHORT.get(name, name)
        if not given or name.upper() not in Field.__members__:
            raise ConfigError(
                f"{word!r} is no field",
                "write FIELD=VALUE, such as eth_dst=52:54:00:00:00:01, or ip, arp, udp",
            )
        fields[name] = _value(Field[name.upper()], text, word)
    return Match.of(**_with_type(fields))


def _with_type(fields: dict[str, Value]) -> dict[str, Value]:
    """An address says which protocol it is of."""
    for prefix, kind in (("ipv4_", 0x0800), ("arp_", 0x0806), ("ipv6_", 0x86DD)):
        if any(name.startswith(prefix) for name in fields):
            fields.setdefault("eth_type", kind)
    return fields


def _value(field: Field, text: str, word: str) -> Value:
    try:
        if field in _MACS:
            if not _MAC.match(text):
                raise ValueError
            return bytes.fromhex(text.replace(":", ""))
        if field in _ADDRESSES:
            found = ip_network(text) if "/" in text else ip_address(text)
            if found.max_prefixlen != SIZES[field] * 8:
                raise ValueError
            return found
        number = int(text, 0)
        if not 0 <= number < 1 << 8 * SIZES[field]:
            raise ValueError
        return number
    except ValueError:
        raise ConfigError(f"{word!r}: {text!r} is no value of {field.name.lower()}") from None


def match_text(match: Match) -> str:
    """Comma-separated fields; empty for everything."""
    return ",".join(_field_text(field, value, mask) for field, (value, mask) in match.fields().items())


def _field_text(field: int, value: bytes, mask: bytes | None) -> str:
    name = Field(field).name.lower() if field in SIZES else f"field{field}"
    shown = _bytes_text(field, value)
    return f"{name}={shown}" if mask is None else f"{name}={shown}/{_bytes_text(field, mask)}"


def _bytes_text(field: int, value: bytes) -> str:
    if field in _MACS:
        return value.hex(":")
    if field in _ADDRESSES and len(value) in (4, 16):
        return str(ip_address(value))
    number = int.from_bytes(value, "big")
    return f"{number:#06x}" if field == Field.ETH_TYPE else str(number)


def flow_text(one: Flow, ports: Mapping[int, str]) -> str:
    """One line; ``ports``: number -> name."""
    out = [ports.get(number, str(number)) for number in action.outputs(one.instructions)]
    does = (
        ",".join(f"output:{name}" for name in out)
        if out
        else ("drop" if not one.instructions else "(other actions)")
    )
    table = f"table={one.table}," if one.table else ""
    return f"{table}priority={one.priority},{match_text(one.match)} cookie={one.cookie:#x} -> {does}".replace(
        ", ", " "
    )
