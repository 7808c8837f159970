"""What may be said to the controller, and its bounds. Pure.

A request's payload is untrusted: each field is looked at for kind and size here, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Final

from controller_bridge import setup_frame
from controller_bridge.core.answers import OURS
from controller_bridge.core.hosts import Address
from controller_bridge.core.moves import Order
from controller_bridge.fence import TOKEN_BYTES
from controller_bridge.setup_frame import HEADER_BYTES
from vmnet.config.checks import HOST_NAME
from vmnet.errors import RefusedError

PORT: Final = 6654
SOCKET: Final = "/run/vmnet-controller/controller.sock"
STEPS: Final = ("prepare", "cut_over", "finish", "roll_back")
MOST_MACS: Final = 32
MOST_ADDRESSES: Final = 64
MOST_STATIONS: Final = 4000
"""In one answer: with 16 addresses each they fit into a frame."""
_ORDER: Final = frozenset({"id", "source", "destination", "macs", "addresses", "headers"})
_TOKEN = re.compile(rf"[0-9a-f]{{{2 * TOKEN_BYTES}}}\Z")
_HEADER = re.compile(rf"([0-9a-f]{{2}}){{14,{HEADER_BYTES}}}\Z")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}\Z")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}\Z")


def order(payload: Mapping[str, Any]) -> Order:
    """RefusedError naming the field that is wrong."""
    _only(payload, _ORDER)
    made = Order(
        _text(payload, "id", _ID, "up to 100 letters, digits, '.', '_', ':', '-'"),
        _text(payload, "source", HOST_NAME, "a host's name"),
        _text(payload, "destination", HOST_NAME, "a host's name"),
        _macs(payload),
        frozenset(_ip(one) for one in _list(payload, "addresses", MOST_ADDRESSES)),
    )
    headers = _list(payload, "headers", setup_frame.MOST)
    return replace(made, headers=tuple(_header(one, made.macs) for one in headers))


def fenced(payload: Mapping[str, Any]) -> tuple[Order, bytes]:
    """And the fences' token."""
    _only(payload, _ORDER | {"token"})
    token = _text(payload, "token", _TOKEN, f"{2 * TOKEN_BYTES} hexadecimal digits")
    return order({name: value for name, value in payload.items() if name != "token"}), bytes.fromhex(token)


def released(payload: Mapping[str, Any]) -> tuple[bytes, ...]:
    _only(payload, {"macs"})
    return _macs(payload)


def after(payload: Mapping[str, Any]) -> bytes:
    """The station after which an answer goes on; empty: from the beginning."""
    _only(payload, {"after"})
    text = payload.get("after", "")
    return _mac(text) if text else b""


def _only(payload: Mapping[str, Any], known: Set[str]) -> None:
    if payload.keys() - known:
        raise RefusedError("a field that is not known", f"known are {', '.join(sorted(known))}")


def _text(payload: Mapping[str, Any], name: str, pattern: re.Pattern[str], what: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not pattern.match(value):
        raise RefusedError(f"'{name}' is not {what}")
    return value


def _list(payload: Mapping[str, Any], name: str, most: int) -> list[Any]:
    value = payload.get(name, [])
    if not isinstance(value, list) or len(value) > most:
        raise RefusedError(f"'{name}' is no list of {most} at most")
    return value


def _macs(payload: Mapping[str, Any]) -> tuple[bytes, ...]:
    found = tuple(dict.fromkeys(_mac(one) for one in _list(payload, "macs", MOST_MACS)))
    if not found:
        raise RefusedError("'macs' is empty", "a VM has one at least")
    return found


def _mac(text: object) -> bytes:
    if not isinstance(text, str) or not _MAC.match(text):
        raise RefusedError("a MAC address is to be written as in 52:54:00:12:34:56")
    mac = bytes.fromhex(text.replace(":", ""))
    if mac[0] & 1 or not any(mac):
        raise RefusedError(f"{text} is no station's MAC address")
    if mac in OURS:
        raise RefusedError(f"{text} is the fabric's own")
    return mac


def _header(text: object, macs: tuple[bytes, ...]) -> bytes:
    if not isinstance(text, str) or not _HEADER.match(text):
        raise RefusedError(
            f"'headers' has something in it that is not 14 to {HEADER_BYTES} bytes in hexadecimal"
        )
    header = bytes.fromhex(text)
    if header[:6] not in macs:
        raise RefusedError(f"'headers' has a frame to {header[:6].hex(':')}, which is not in 'macs'")
    return header


def _ip(text: object) -> Address:
    try:
        if not isinstance(text, str) or not 2 <= len(text) <= 45 or "%" in text:
            raise ValueError
        return ip_address(text)
    except ValueError:
        raise RefusedError("'addresses' has something in it that is no IP address") from None
