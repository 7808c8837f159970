"""A client's interface as it is in the kernel, so that it can be made again on another link."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vmnet.errors import LabError
from vmnet.lab.node import Node
from vmnet.lab.topology import End

Facts = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Interface:
    """``lines`` and ``lines6`` are for ip(8) and ip(8) with -6: addresses, routes of the main table, permanent neighbours."""

    mac: str
    mtu: int
    index: int
    """Kept: sockets that are bound to the interface know it by that."""
    lines: tuple[str, ...]
    lines6: tuple[str, ...]

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Interface:
        """From what dataclasses.asdict made of one and JSON of that. Raises KeyError, TypeError or ValueError if it is none."""
        return cls(
            str(raw["mac"]), int(raw["mtu"]), int(raw["index"]), tuple(raw["lines"]), tuple(raw["lines6"])
        )


def read(node: Node, port: str) -> Interface:
    """Raises LabError when the node has no such interface."""

    def ask(*words: str) -> Any:
        return json.loads(node.run(["ip", "-j", *words, "dev", port]).stdout or "[]")

    shown = ask("address", "show")[0]
    return Interface(
        str(shown["address"]),
        int(shown["mtu"]),
        int(shown["ifindex"]),
        (
            *address_lines(port, shown["addr_info"], "inet"),
            *route_lines(port, ask("-4", "route", "show")),
            *neighbour_lines(port, ask("-4", "neigh", "show", "nud", "permanent")),
        ),
        (
            *address_lines(port, shown["addr_info"], "inet6"),
            *route_lines(port, ask("-6", "route", "show")),
            *neighbour_lines(port, ask("-6", "neigh", "show", "nud", "permanent")),
        ),
    )


def link_line(interface: Interface, client: End, switch: End, netns_of: Mapping[str, str]) -> str:
    """The veth pair, straight in its namespaces."""
    mine = (
        f"name {client.port} index {interface.index} mtu {interface.mtu} address {interface.mac} "
        f"netns {netns_of[client.node]}"
    )
    return (
        f"link add {mine} type veth peer name {switch.port} mtu {interface.mtu} netns {netns_of[switch.node]}"
    )


def address_lines(port: str, facts: Facts, family: str) -> list[str]:
    """Without link-local ones of IPv6: the kernel makes the same again from the same MAC address."""
    nodad = " nodad" if family == "inet6" else ""
    kept = (
        one for one in facts if one["family"] == family and not (family == "inet6" and one["scope"] == "link")
    )
    return [f"addr add {one['local']}/{one['prefixlen']}{_more(one)} dev {port}{nodad}" for one in kept]


def _more(address: Mapping[str, Any]) -> str:
    broadcast = f" brd {address['broadcast']}" if "broadcast" in address else ""
    return broadcast + ("" if address["scope"] == "global" else f" scope {address['scope']}")


def route_lines(port: str, facts: Facts) -> list[str]:
    """Without those that the kernel makes by itself. The way to a gateway comes before those that go over it."""
    lines = []
    for one in sorted(facts, key=lambda fact: "gateway" in fact):
        if one.get("protocol") == "kernel" or one.get("type") == "multicast":
            continue
        words = [f"route add {one['dst']}"]
        for key, word in (
            ("gateway", "via"), ("protocol", "proto"), ("scope", "scope"), ("prefsrc", "src"), ("metric", "metric"),
        ):  # fmt: skip
            if key in one:
                words.append(f"{word} {one[key]}")
        lines.append(" ".join([*words, f"dev {port}"]))
    return lines


def neighbour_lines(port: str, facts: Facts) -> list[str]:
    return [
        f"neigh replace {one['dst']} lladdr {one['lladdr']} nud permanent dev {port}"
        for one in facts
        if "lladdr" in one
    ]


def exists(node: Node, port: str) -> bool:
    return node.run(["test", "-e", f"/sys/class/net/{port}"], check=False).returncode == 0


def operates(node: Node, port: str) -> bool:
    """RFC 2863's operational state; some time behind the carrier."""
    return str(node.run(["cat", f"/sys/class/net/{port}/operstate"]).stdout).strip() == "up"


def checked(raw: Any) -> Interface:
    """Raises LabError when the record of an interface is damaged."""
    try:
        return Interface.from_json(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(repr(error)) from None


def damaged(why: str) -> LabError:
    return LabError(f"the record of an unfinished move is damaged: {why}", "take the lab down and up")
