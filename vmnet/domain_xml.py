"""libvirt's domain XML, read and changed safely: it comes from another host. Bounded, no entities."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID
from xml.etree.ElementTree import Element, SubElement, TreeBuilder, tostring
from xml.parsers import expat

from vmnet import router
from vmnet.errors import RefusedError

MAX_BYTES = 1_048_576
MAX_DEPTH = 64
MAX_INTERFACES = 256
_MEMORY_KIB = {
    "b": 1 / 1024,
    "bytes": 1 / 1024,
    "KB": 1000 / 1024,
    "k": 1,
    "KiB": 1,
    "MB": 1e6 / 1024,
    "M": 1024,
}
_MEMORY_KIB |= {
    "MiB": 1024,
    "GB": 1e9 / 1024,
    "G": 1024**2,
    "GiB": 1024**2,
    "TB": 1e12 / 1024,
    "T": 1024**3,
    "TiB": 1024**3,
}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
DEVICE_NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.+@:-]{1,255}\Z")


@dataclass(frozen=True)
class Interface:
    """One ``<interface>``: ``kind`` is its type attribute ("bridge", "network", ...), ``mac`` is lower case.

    ``bridge`` is the source bridge (for a network: the one libvirt chose, if it says), ``network`` its name.
    """

    mac: str
    kind: str
    bridge: str | None = None
    network: str | None = None
    target_dev: str | None = None
    virtualport: str | None = None
    mtu: int | None = None
    model: str | None = None
    queues: int = 1
    """Pairs of them (``<driver queues=...>``, multi-queue virtio)."""


@dataclass(frozen=True)
class DomainInfo:
    """What vmnet reads of a domain. ``driver`` is its type ("qemu", "kvm", "xen"); absent texts are ""."""

    name: str
    uuid: str
    driver: str
    machine: str
    arch: str
    vcpus: int
    memory_kib: int
    interfaces: tuple[Interface, ...] = ()
    router: router.RouterSpec | None = None


def parse(xml: bytes) -> DomainInfo:
    """Read a domain's XML. Raises RefusedError if it is too large, malformed, has a DTD, or is no domain."""
    root = _tree(xml)
    name = (root.findtext("name") or "").strip()
    if not name or len(name) > 255 or not name.isprintable() or "/" in name:
        raise RefusedError("the domain XML has no usable <name>", "see what the source host sends")
    os_type = root.find("os/type")
    return DomainInfo(
        name=name,
        uuid=_uuid(root),
        driver=root.get("type", ""),
        machine="" if os_type is None else os_type.get("machine", ""),
        arch="" if os_type is None else os_type.get("arch", ""),
        vcpus=_number(root.findtext("vcpu"), "vcpu", 4096) or 1,
        memory_kib=_memory(root),
        interfaces=tuple(_interface(one) for one in _interfaces(root)),
        router=router.find(root.find("metadata")),
    )


def rebind(
    xml: bytes, mapping: Mapping[str, str], openvswitch: Mapping[str, bool] | None = None
) -> bytes | None:
    """Move each interface of type bridge from its source bridge to ``mapping[bridge]``.

    ``openvswitch`` says of bridges here whether they are Open vSwitch's: an interface that ends on one gets a
    ``<virtualport type='openvswitch'>``, one that ends on another bridge loses it; interfaces on bridges not
    listed keep what they have. Returns the new XML, or None if nothing changes. Raises as ``parse`` does.
    """
    root = _tree(xml)
    changes = [_rebind_one(one, mapping, openvswitch or {}) for one in _interfaces(root)]
    return tostring(root, encoding="utf-8", xml_declaration=False) if any(changes) else None


def _rebind_one(one: Element, mapping: Mapping[str, str], openvswitch: Mapping[str, bool]) -> bool:
    source = one.find("source")
    if one.get("type") != "bridge" or source is None:
        return False
    old = source.get("bridge", "")
    new = mapping.get(old, old)
    if new != old:
        source.set("bridge", new)
    return _set_virtualport(one, openvswitch.get(new)) or new != old


def _set_virtualport(one: Element, wanted: bool | None) -> bool:
    port = one.find("virtualport")
    has = port is not None and port.get("type") == "openvswitch"
    if wanted is None or wanted == has:
        return False
    if port is not None:
        one.remove(port)
    if wanted:
        SubElement(one, "virtualport", type="openvswitch")
    return True


def _interfaces(root: Element) -> list[Element]:
    found = root.findall("devices/interface")
    if len(found) > MAX_INTERFACES:
        raise RefusedError(
            f"the domain XML has more than {MAX_INTERFACES} interfaces", "this is no domain of ours"
        )
    return found


def _interface(one: Element) -> Interface:
    mac = _attribute(one, "mac", "address").lower()
    if mac and not _MAC.match(mac):
        raise RefusedError("the domain XML has a malformed MAC address", "see what the source host sends")
    return Interface(
        mac=mac,
        kind=one.get("type", ""),
        bridge=_name(one, "source", "bridge"),
        network=_attribute(one, "source", "network") or None,
        target_dev=_name(one, "target", "dev"),
        virtualport=_attribute(one, "virtualport", "type") or None,
        mtu=_number(_attribute(one, "mtu", "size") or None, "mtu", 65535),
        model=_attribute(one, "model", "type") or None,
        queues=_number(_attribute(one, "driver", "queues") or None, "queues", 256) or 1,
    )


def _attribute(one: Element, tag: str, name: str) -> str:
    found = one.find(tag)
    return "" if found is None else found.get(name, "")


def _name(one: Element, tag: str, name: str) -> str | None:
    """The name of a bridge or device: it will end up in netlink calls and paths below /sys."""
    value = _attribute(one, tag, name)
    if value and not DEVICE_NAME.match(value):
        raise RefusedError(f"the domain XML has a malformed {tag} {name}", "see what the source host sends")
    return value or None


def _number(text: str | None, what: str, high: int) -> int | None:
    if text is None:
        return None
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) <= high):
        raise RefusedError(
            f"the domain XML's {what} is not a number from 0 to {high}", "see what the source sends"
        )
    return int(text)


def _memory(root: Element) -> int:
    memory = root.find("memory")
    if memory is None:
        return 0
    number = _number(memory.text or "", "memory", 2**60) or 0
    return int(number * _MEMORY_KIB.get(memory.get("unit", "KiB"), 1))


def _uuid(root: Element) -> str:
    text = (root.findtext("uuid") or "").strip()
    try:
        return str(UUID(text)) if text else ""
    except ValueError:
        raise RefusedError(
            "the domain XML has a malformed <uuid>", "see what the source host sends"
        ) from None


class _Builder(TreeBuilder):
    """Builds the tree, but no deeper than MAX_DEPTH: writing it out again recurses."""

    depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RefusedError(
                f"the domain XML is nested deeper than {MAX_DEPTH}", "this is no domain of ours"
            )
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        self.depth -= 1
        return super().end(tag)


def _forbidden(*_: object) -> None:
    raise RefusedError(
        "the domain XML has a document type or entities", "libvirt never writes those; not accepted"
    )


def _tree(xml: bytes) -> Element:
    """Parse without namespaces, so that prefixes such as ``qemu:`` are written back as they came."""
    if len(xml) > MAX_BYTES:
        raise RefusedError(f"the domain XML is larger than {MAX_BYTES} bytes", "this is no domain of ours")
    parser = expat.ParserCreate()
    builder = _Builder()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _forbidden
    try:
        parser.Parse(xml, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise RefusedError(
            f"the domain XML is not well-formed: {error}", "see what the source host sends"
        ) from None
    root = builder.close()
    if root.tag != "domain":
        raise RefusedError(f"the XML is a <{root.tag[:40]}>, not a <domain>", "give a domain's XML")
    return root
