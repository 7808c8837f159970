"""Where clients are plugged in, and where they could be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from vmnet.errors import NotFoundError, RefusedError
from vmnet.lab.topology import End, Link, Node, Topology


class Attachment(NamedTuple):
    """A client's end of a link and the switch's."""

    client: End
    switch: End


def name(end: End) -> str:
    return f"{end.node}:{end.port}"


def parse(text: str) -> End:
    node, _, port = text.partition(":")
    return End(node, port)


def mobile(topology: Topology) -> list[Attachment]:
    """Every client at an access port, in the order of the file."""
    pairs = [pair for link in topology.links for pair in (link.ends, link.ends[::-1])]
    return [
        Attachment(one, other)
        for one, other in pairs
        if topology.nodes[one.node].kind == "client" and other.port in topology.nodes[other.node].access
    ]


def attachment(topology: Topology, client: str) -> Attachment:
    """Of ``CLIENT`` or ``CLIENT:PORT``. Raises NotFoundError when nothing mobile has that name, RefusedError when several have."""
    wanted = parse(client)
    everyone = mobile(topology)
    found = [
        one for one in everyone if one.client.node == wanted.node and wanted.port in ("", one.client.port)
    ]
    if len(found) > 1:
        raise RefusedError(
            f"{client} has several links", f"give one of {', '.join(name(o.client) for o in found)}"
        )
    if found:
        return found[0]
    known = ", ".join(dict.fromkeys(one.client.node for one in everyone)) or "none"
    node = topology.nodes.get(wanted.node)
    if node is not None and node.kind == "client":
        raise NotFoundError(
            f"{client} is not at an access port and stays where it is", f"mobile clients: {known}"
        )
    raise NotFoundError(f"there is no client '{client}'", f"mobile clients: {known}")


def target(topology: Topology, here: Attachment, text: str) -> End:
    """The port that ``SWITCH:PORT`` or ``SWITCH`` (where the client is, else the first free one) means for this client.

    Raises NotFoundError when there is none, RefusedError when it is in use.
    """
    wanted = parse(text)
    switch = _switch(topology, wanted.node)
    if not wanted.port and here.switch.node == switch.name:
        return here.switch
    taken = {one.switch.port: one.client for one in mobile(topology) if one.switch.node == switch.name}
    if not wanted.port:
        free = next((port for port in switch.access if port not in taken), None)
        if free is None:
            raise RefusedError(f"every access port of {switch.name} is in use", _who(taken))
        return End(switch.name, free)
    if wanted.port not in switch.access:
        raise NotFoundError(
            f"{switch.name} has no access port '{wanted.port}'", f"it has: {', '.join(switch.access)}"
        )
    holder = taken.get(wanted.port)
    if holder is not None and holder != here.client:
        raise RefusedError(
            f"{text} is in use by {name(holder)}", f"move {holder.node} away first, or give another port"
        )
    return wanted


def placed(topology: Topology, places: Mapping[str, str]) -> Topology:
    """The topology with clients where they have moved to (client's end -> switch's end, as ``node:port``)."""
    links = tuple(_moved(link, places) for link in topology.links)
    changed = replace(topology, links=links)
    switches = {
        node.name: _with_ports(changed, node) for node in topology.nodes.values() if node.kind == "switch"
    }
    return replace(changed, nodes={**topology.nodes, **switches})


def _switch(topology: Topology, wanted: str) -> Node:
    node = topology.nodes.get(wanted)
    if node is None or not node.access:
        known = ", ".join(n.name for n in topology.nodes.values() if n.access) or "none"
        what = f"there is no switch '{wanted}'" if node is None else f"{wanted} has no access ports"
        raise NotFoundError(what, f"switches with access ports: {known}")
    return node


def _who(taken: Mapping[str, End]) -> str:
    return ", ".join(f"{port}: {end.node}" for port, end in taken.items())


def _moved(link: Link, places: Mapping[str, str]) -> Link:
    one, other = link.ends
    if (place := places.get(name(one))) is not None:
        return replace(link, ends=(one, parse(place)))
    if (place := places.get(name(other))) is not None:
        return replace(link, ends=(parse(place), other))
    return link


def _with_ports(topology: Topology, node: Node) -> Node:
    ports = tuple(port for port in topology.ports(node.name) if port not in node.addresses)
    return replace(node, bridges=(replace(node.bridges[0], ports=ports),))
