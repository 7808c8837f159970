"""Who numbers the zones of connection tracking: OVN, which does so on each host apart, or the operator, for all hosts alike."""

from __future__ import annotations

from dom0 import bridges
from vmnet.errors import VmnetError

_OVN_KEY = "ct-zone-"
"""In a bridge's ``external_ids``, followed by the logical port (OVN ``controller/ovn-controller.c``)."""


async def are_of_this_host() -> bool:
    """Another host's zone of that number is none of ours. False without Open vSwitch."""
    try:
        return _OVN_KEY in await bridges.ovs_vsctl("--columns=external_ids", "list", "Bridge")
    except VmnetError:
        return False
