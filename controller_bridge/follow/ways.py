"""How many links hosts and clients are apart, by the fabric's topology. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from controller_bridge.topology import Place, Topology


def hops(
    topology: Topology, hosts: Mapping[str, Place], clients: Mapping[str, Place]
) -> dict[str, dict[str, int]]:
    """Host -> client -> links, both ends' own included; 0 where they share a port, and so never meet a switch.

    Who cannot be reached is left out.
    """
    found = {}
    for host, at in hosts.items():
        apart = topology.distances(at.switch)
        found[host] = {
            client: 0 if place == at else apart[place.switch] + 2
            for client, place in clients.items()
            if place.switch in apart
        }
    return found
