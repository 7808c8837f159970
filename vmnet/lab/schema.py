"""From a YAML document to a Topology. Keys are documented in docs/lab.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from vmnet.errors import ConfigError
from vmnet.lab import schema_machine, schema_switch
from vmnet.lab.check import check
from vmnet.lab.reader import Reader
from vmnet.lab.schema_frr import frr
from vmnet.lab.topology import (
    GUEST_MTU,
    LINK_MTU,
    PORT_NAME,
    Bridge,
    BridgeKind,
    End,
    Link,
    Node,
    NodeKind,
    Topology,
    Vm,
    VmInterface,
    stable_mac,
)

BUILT_IN = Path(__file__).parent / "topologies"
NODE_NAME = r"[a-z][a-z0-9_]{0,14}"

_SECTIONS: dict[str, NodeKind] = {
    "hosts": "host",
    "clients": "client",
    "switches": "switch",
    "routers": "router",
}
_COMMON = ("addresses", "gateways", "macs", "plain_checksums")
_KEYS: dict[NodeKind, tuple[str, ...]] = {
    "host": (*_COMMON, "bridges", "daemon", "hooks", "config", "kind", *schema_machine.KEYS),
    "client": (*_COMMON, "bridges", "frr", "controller", "ovn_central"),
    "router": (*_COMMON, "frr", "proxy_arp"),
    "switch": schema_switch.KEYS,
}


def built_in_names() -> list[str]:
    return sorted(p.stem for p in BUILT_IN.glob("*.yaml"))


def find(name_or_file: str) -> tuple[str, Path]:
    """Default lab name and file of a built-in topology or of a file.

    Raises ConfigError when there is neither.
    """
    for path in (BUILT_IN / f"{name_or_file}.yaml", Path(name_or_file)):
        if path.is_file():
            return path.stem.lower(), path
    raise ConfigError(
        f"no topology '{name_or_file}'", f"give a file or one of: {', '.join(built_in_names())}"
    )


def load_document(path: Path) -> Any:
    """The YAML document in a file. Raises ConfigError when it is none."""
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path} is not YAML{where}: {getattr(error, 'problem', error)}") from error


def parse(document: Any) -> Topology:
    """Build a topology. Raises ConfigError naming the path of the first bad key."""
    root = Reader(document, "")
    root.mapping((*_SECTIONS, "links", "vms"))
    links = tuple(_link(reader) for reader in root.at("links").each())
    nodes: dict[str, Node] = {}
    for section, kind in _SECTIONS.items():
        for name, reader in root.at(section).items():
            _named(reader, name, NODE_NAME)
            if name in nodes:
                raise reader.fail("is the second node of that name")
            nodes[name] = _node(reader, name, kind, links)
    vms = {name: _vm(reader, name) for name, reader in root.at("vms").items()}
    topology = Topology(nodes, links, vms)
    check(topology)
    return topology


def _named(reader: Reader, name: str, pattern: str) -> None:
    Reader(name, f"the name of {reader.path}").text(pattern)


def _node(reader: Reader, name: str, kind: NodeKind, links: tuple[Link, ...]) -> Node:
    reader.mapping(_KEYS[kind])
    if kind == "switch":
        return schema_switch.switch(reader, name, links)
    return Node(
        name,
        kind,
        addresses={p: tuple(a.interface() for a in r.each()) for p, r in reader.at("addresses").items()},
        gateways=_gateways(reader),
        macs={p: r.mac("") for p, r in reader.at("macs").items()},
        plain_checksums=tuple(r.text(PORT_NAME) for r in reader.at("plain_checksums").each()),
        bridges=tuple(_bridge(r, name, bridge) for bridge, r in reader.at("bridges").items()),
        proxy_arp=reader.at("proxy_arp").flag(False),
        daemon=reader.at("daemon").flag(kind == "host"),
        hooks=reader.at("hooks").flag(kind == "host"),
        config=reader.at("config").mapping(),
        frr=frr(reader.at("frr")),
        controller=reader.at("controller").mapping() if reader.has("controller") else None,
        ovn_central=reader.at("ovn_central").flag(False),
        machine=schema_machine.of_host(reader),
    )


def _bridge(reader: Reader, node: str, name: str) -> Bridge:
    _named(reader, name, PORT_NAME)
    reader.mapping(("kind", "segment", "ports", "mtu", "mac"))
    return Bridge(
        name,
        cast(BridgeKind, reader.at("kind").choice(get_args(BridgeKind), "linux")),
        reader.at("segment").text(default="lan"),
        tuple(r.text(PORT_NAME) for r in reader.at("ports").each()),
        reader.at("mtu").integer(1280, 65535, LINK_MTU),
        reader.at("mac").mac(stable_mac(node, name, prefix="02:76:6d")),
    )


def _link(reader: Reader) -> Link:
    reader.mapping(("ends", "mtu"))
    ends = [_end(r) for r in reader.at("ends").each()]
    if len(ends) != 2:
        raise reader.at("ends").fail("must be two ends, each node:port")
    return Link((ends[0], ends[1]), reader.at("mtu").integer(1280, 65535, LINK_MTU))


def _end(reader: Reader) -> End:
    node, _, port = reader.text(f"{NODE_NAME}:{PORT_NAME}").partition(":")
    return End(node, port)


def _vm(reader: Reader, name: str) -> Vm:
    _named(reader, name, r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
    reader.mapping(("host", "memory", "image", "machine", "gateways", "interfaces", "files", "agent", "game"))
    machine = reader.at("machine")
    image = cast(Literal["small", "router"], reader.at("image").choice(("small", "router"), "small"))
    return Vm(
        name,
        reader.at("host").text(),
        reader.at("memory").integer(64, 65536, 128 if image == "small" else 192),
        image,
        None if machine.value is None else machine.text(r"[A-Za-z0-9_.-]+"),
        tuple(_vm_interface(r, name, n) for n, r in enumerate(reader.at("interfaces").each())),
        _gateways(reader),
        {path: _guest_file(r, path) for path, r in reader.at("files").items()},
        reader.at("agent").text(r"[0-9.]+:[0-9]{1,5}", default=""),
        reader.at("game").flag(False),
    )


def _guest_file(reader: Reader, path: str) -> str:
    _named(reader, path, r"/[^\0]+[^\0/]")
    return reader.text(r"(?s:.*)")


def _vm_interface(reader: Reader, vm: str, number: int) -> VmInterface:
    reader.mapping(("bridge", "mac", "addresses", "mtu", "plain_checksums"))
    return VmInterface(
        reader.at("bridge").text(PORT_NAME, default="br0"),
        reader.at("mac").mac(stable_mac(vm, str(number))),
        tuple(r.interface() for r in reader.at("addresses").each()),
        reader.at("mtu").integer(576, 65535, GUEST_MTU),
        reader.at("plain_checksums").flag(False),
    )


def _gateways(reader: Reader) -> tuple[str, ...]:
    return tuple(r.address() for r in reader.at("gateways").each())


def with_defaults(
    document: Any, *, hooks: bool | None = None, daemon: bool | None = None, memory_mib: int | None = None
) -> Any:
    """The document with hooks or the daemon switched for every host; without daemons there is no controller either.

    ``memory_mib``: of every VM.
    """
    if not isinstance(document, Mapping):
        return document
    changes = {k: v for k, v in (("hooks", hooks), ("daemon", daemon)) if v is not None}
    changed = {}
    if changes and isinstance(hosts := document.get("hosts"), Mapping):
        changed["hosts"] = {n: {**(h or {}), **changes} for n, h in hosts.items()}
    if daemon is False and isinstance(clients := document.get("clients"), Mapping):
        changed["clients"] = {n: _without_controller(c) for n, c in clients.items()}
    if memory_mib is not None and isinstance(vms := document.get("vms"), Mapping):
        changed["vms"] = {n: {**(v or {}), "memory": memory_mib} for n, v in vms.items()}
    return {**document, **changed} if changed else document


def _without_controller(client: Any) -> Any:
    return {k: v for k, v in client.items() if k != "controller"} if isinstance(client, Mapping) else client
