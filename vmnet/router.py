"""What makes a VM a virtual router: an element in its domain's metadata, which libvirt carries along wherever the VM goes. Pure.

.. code-block:: xml

    <metadata>
      <vmnet:router xmlns:vmnet="urn:vmnet:router:1" management="52:54:00:00:0a:03" keep-s="120" bypass="filters">
        <vmnet:address mac="52:54:00:00:0a:01">10.1.0.1/24</vmnet:address>
      </vmnet:router>
    </metadata>
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_interface
from xml.etree.ElementTree import Element, SubElement, tostring

from vmnet.errors import RefusedError

URI = "urn:vmnet:router:1"
PREFIX = "vmnet"
MOST_KEEP_S = 86_400
_MOST_ADDRESSES = 256
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")


class Bypass(StrEnum):
    """What a router VM's kernel may do to packets that no host does for it. The operator may let the host forward all the same."""

    FILTERS = "filters"
    FORWARDING = "forwarding"
    INTERFACES = "interfaces"
    RULES = "rules"
    TC = "tc"
    UNTOLD = "untold"


@dataclass(frozen=True)
class RouterSpec:
    """``management``: MAC of the interface over which the VM tells us of its routes. ``keep_s``: how long its data plane goes on
    when the VM has died; None: as the host is configured. ``addresses``: (MAC, address/length), for VMs without our agent.
    ``bypass``: the host forwards although the VM's kernel does such things to packets."""

    management: str
    keep_s: int | None = None
    addresses: tuple[tuple[str, str], ...] = ()
    bypass: frozenset[Bypass] = frozenset()

    def to_xml(self) -> str:
        """The element as it goes into the metadata (libvirt adds the namespace itself, with its key as prefix)."""
        root = Element("router", management=self.management)
        if self.keep_s is not None:
            root.set("keep-s", str(self.keep_s))
        if self.bypass:
            root.set("bypass", " ".join(sorted(self.bypass)))
        for mac, address in self.addresses:
            SubElement(root, "address", mac=mac).text = address
        return tostring(root, encoding="unicode")


def find(metadata: Element | None) -> RouterSpec | None:
    """The router element below ``<metadata>``, read without namespaces. RefusedError if it is there and malformed."""
    for one in metadata if metadata is not None else ():
        prefix, _, tag = one.tag.rpartition(":")
        declared = one.get(f"xmlns:{prefix}" if prefix else "xmlns")
        if tag == "router" and declared == URI:
            return _read(one)
    return None


def _read(one: Element) -> RouterSpec:
    keep = one.get("keep-s")
    children = [child for child in one if child.tag.rpartition(":")[2] == "address"]
    if len(children) > _MOST_ADDRESSES:
        raise RefusedError(f"the router's metadata has more than {_MOST_ADDRESSES} addresses")
    return RouterSpec(
        mac(one.get("management", "")),
        None if keep is None else keep_s(keep),
        tuple((mac(child.get("mac", "")), address((child.text or "").strip())) for child in children),
        bypasses(one.get("bypass", "").split()),
    )


def mac(text: str) -> str:
    """RefusedError if ``text`` is no MAC address."""
    if not _MAC.match(text.lower()):
        raise RefusedError(f"{text[:40]!r} is no MAC address", "see `virsh domiflist`")
    return text.lower()


def bypasses(words: Iterable[str]) -> frozenset[Bypass]:
    """RefusedError if one of them is none."""
    try:
        return frozenset(Bypass(word) for word in words)
    except ValueError as error:
        raise RefusedError(f"{error}: nothing that can be bypassed", f"one of {', '.join(Bypass)}") from None


def address(text: str) -> str:
    """RefusedError unless ``text`` is an IP address with its prefix length."""
    try:
        if "/" not in text:
            raise ValueError(text)
        return str(ip_interface(text))
    except ValueError:
        raise RefusedError(
            f"{text[:60]!r} is no IP address with its prefix length", "as in 10.1.0.1/24"
        ) from None


def keep_s(text: str) -> int:
    """Seconds; RefusedError if out of bounds."""
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= MOST_KEEP_S):
        raise RefusedError(f"{text[:20]!r} is no number of seconds from 0 to {MOST_KEEP_S}")
    return int(text)
