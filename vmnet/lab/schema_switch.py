"""What a topology says of a switch."""

from __future__ import annotations

import re
from typing import cast

from vmnet.lab import schema_machine
from vmnet.lab.reader import Reader
from vmnet.lab.topology import (
    LINK_MTU,
    PORT_NAME,
    SWITCH,
    Bridge,
    BridgeKind,
    Link,
    Node,
    OpenFlow,
    stable_mac,
)

KEYS = ("kind", "mtu", "flows", "addresses", "access", "openflow", "machine")
_CONTROLLER = r"(tcp|ssl):(\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:]+\]):\d{1,5}"


def host_of(controller: str) -> str:
    """The address in ``tcp:ADDRESS:PORT``."""
    return controller.partition(":")[2].rpartition(":")[0].strip("[]")


def switch(reader: Reader, name: str, links: tuple[Link, ...]) -> Node:
    """One bridge with every link's end of the node in it that has no address. Raises ConfigError."""
    kind = cast(BridgeKind, reader.at("kind").choice(("linux", "ovs"), "linux"))
    for key in ("flows", "openflow"):
        if reader.has(key) and kind != "ovs":
            raise reader.at(key).fail("needs kind: ovs")
    addresses = {
        port: tuple(a.interface4() for a in one.each()) for port, one in reader.at("addresses").items()
    }
    access = tuple(one.text(PORT_NAME) for one in reader.at("access").each())
    ends = [e.port for link in links for e in link.ends if e.node == name and e.port not in addresses]
    bridge = Bridge(
        SWITCH,
        kind,
        "",
        tuple(ends),
        reader.at("mtu").integer(1280, 65535, LINK_MTU),
        stable_mac(name, SWITCH, prefix="02:76:6d"),
        tuple(one.text() for one in reader.at("flows").each()),
        _openflow(reader.at("openflow"), bool(addresses)) if reader.has("openflow") else None,
        {port: number for number, port in enumerate(dict.fromkeys((*ends, *access)), 1)},
    )
    machine = schema_machine.of_switch(reader)
    return Node(name, "switch", addresses=addresses, bridges=(bridge,), access=access, machine=machine)


def _openflow(reader: Reader, reachable: bool) -> OpenFlow:
    reader.mapping(("listen", "controller"))
    listen = reader.at("listen").integer(1, 65535, 0) if reader.has("listen") else 0
    controller = reader.at("controller").text(default="")
    if controller and not re.fullmatch(_CONTROLLER, controller):
        raise reader.at("controller").fail(f"must be tcp:ADDRESS:PORT or ssl:ADDRESS:PORT, is {controller!r}")
    if controller:
        Reader(host_of(controller), f"{reader.path}.controller").address()
    for key in ("listen", "controller"):
        if reader.has(key) and not reachable:
            raise reader.at(key).fail("needs a port with an address: switches.S.addresses")
    return OpenFlow(listen, controller)
