"""What a single setting may be: each check returns the value, converted, or raises ValueError.

The text of the ValueError is ``what is wrong; what to do`` and ends up in a ConfigError as it is.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmnet import control_rules

Check = Callable[[Any], Any]

# Host names are also names in certificates and on the control socket, so they are DNS-like.
HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
# What the kernel takes as an interface name (dev_valid_name() in net/core/dev.c), less the exotic part.
INTERFACE_NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.+@-]{1,15}\Z")
URI = re.compile(r"[a-z][a-z0-9+.-]*:[^\s\x00-\x1f]*\Z")


def _kind(value: object) -> str:
    names = {
        bool: "true/false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), type(value).__name__)


def _quoted(value: object) -> str:
    """The value on one line, whatever it holds."""
    shown = json.dumps(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def typed(kind: type, wanted: str) -> Check:
    """A check that takes exactly ``kind`` (so that ``true`` is not 1)."""

    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"is {_kind(value)}, not {wanted}; write {wanted}")
        return value

    return check


text = typed(str, "a text in quotes")
boolean = typed(bool, "true or false")
table = typed(dict, "a table")
_whole = typed(int, "a whole number")


def integer(low: int, high: int, unit: str = "") -> Check:
    """A check for a whole number in low..high."""

    def check(value: Any) -> Any:
        if not low <= _whole(value) <= high:
            raise ValueError(f"{_quoted(value)} is out of range; give {low} to {high}{unit and ' ' + unit}")
        return value

    return check


def choice(*allowed: str) -> Check:
    """A check for one of a few words."""

    def check(value: Any) -> Any:
        if text(value) not in allowed:
            raise ValueError(f"{_quoted(value)} is not known; use one of {', '.join(allowed)}")
        return value

    return check


def matching(pattern: re.Pattern[str], what: str, advice: str) -> Check:
    """A check for a text that is ``what``."""

    def check(value: Any) -> Any:
        if not pattern.match(text(value)):
            raise ValueError(f"{_quoted(value)} is not {what}; {advice}")
        return value

    return check


host_name = matching(HOST_NAME, "a host name", "use up to 63 letters, digits, '.', '_', '-'")
interface_name = matching(INTERFACE_NAME, "an interface name", "use 1 to 15 letters, digits, '_', '.', '-'")
segment_name = matching(
    re.compile(r"[\w.:-]{1,63}\Z"), "a segment name", "use up to 63 letters, digits, '.', '_', '-'"
)
uri = matching(URI, "a URI", 'write something like "qemu:///system"')
remote = matching(
    re.compile(r"(ssl|tcp):[^\s]+:\d{1,5}\Z|unix:/[^\s]+\Z"),
    "an OVSDB remote",
    'write "ssl:ADDRESS:PORT" or "unix:PATH"',
)


def address(value: Any) -> str:
    """An IPv4 or IPv6 address in its shortest form."""
    try:
        return str(ipaddress.ip_address(text(value)))
    except ValueError as error:
        if "text" in str(error):
            raise
        raise ValueError(
            f'{_quoted(value)} is not an IP address; write an address such as "10.0.0.1" or "fd00::1"'
        ) from None


def unicast(value: Any) -> str:
    """An address that one host can have."""
    parsed = ipaddress.ip_address(address(value))
    if parsed.is_unspecified or parsed.is_multicast:
        raise ValueError(f"{_quoted(value)} is not the address of one host; write its unicast address")
    return str(parsed)


def interface_address(value: Any) -> str:
    """An address with its prefix length, as ``ip address add`` takes it."""
    if "/" not in text(value):
        raise ValueError(f"{_quoted(value)} has no prefix length; write it as in 169.254.42.1/30")
    try:
        return str(ipaddress.ip_interface(value))
    except ValueError:
        raise ValueError(f"{_quoted(value)} is no IP address; write it as in 169.254.42.1/30") from None


def control_rule(value: Any) -> str:
    """A row of a router's control table (:mod:`vmnet.control_rules`), kept as text."""
    try:
        control_rules.parse(text(value))
    except ValueError as error:
        raise ValueError(f"{error}; see docs/routers.md") from None
    return str(value)


def absolute_path(value: Any) -> Path:
    """A path from the root, so that it means the same to the daemon, a hook and a shell."""
    path = Path(text(value))
    if not path.is_absolute() or "\0" in value:
        raise ValueError(f'{_quoted(value)} is not an absolute path; begin it with "/"')
    return path


def socket_path(value: Any) -> Path:
    """An absolute path that fits in a sockaddr_un (unix(7): 107 bytes and a NUL)."""
    path = absolute_path(value)
    if len(bytes(path)) > 107:
        raise ValueError("is longer than the 107 bytes a unix socket's path may have; shorten it")
    return path


def list_of(item: Check) -> Check:
    """A check for a list of what ``item`` takes; returns a tuple."""
    a_list = typed(list, "a list in brackets")

    def check(value: Any) -> Any:
        return tuple(item(one) for one in a_list(value))

    return check
