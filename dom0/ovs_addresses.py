"""Behind which port of an Open vSwitch, with its datapath in the kernel, an address is: as the switch itself says.

Read with ``ovs-appctl`` (ovs-vswitchd(8): ``fdb/show``, ``dpif/show``) and ``ovs-vsctl``. The parsing is pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_LOCAL: Final = 65534
_FDB = re.compile(r"\s*(\d+|LOCAL)\s+(\d+)\s+((?:[0-9a-f]{2}:){5}[0-9a-f]{2})\s")
_DATAPATH = re.compile(r"(\w+)@\S+:")
_BRIDGE = re.compile(r"  (\S+):\s*$")
_PORT = re.compile(r"    (\S+) (\d+)/\d+: \((\w+)")
_UNTAGGED_MODES = ("access", "native-untagged")


@dataclass(frozen=True)
class PortVlan:
    """``tag``: the port's own VLAN, 0 if it has none; ``untagged``: frames of that one have no tag there."""

    tag: int = 0
    untagged: bool = False


@dataclass(frozen=True)
class Place:
    """``vlan``: in whose tag a frame that comes in at ``port`` has to be; 0: it has none."""

    port: str
    vlan: int


@dataclass(frozen=True)
class SwitchAddresses:
    """``ports``: names of those that are devices of the kernel, by OpenFlow number. ``behind``: such a number, by VLAN and address."""

    ports: Mapping[int, str] = field(default_factory=dict)
    vlans: Mapping[str, PortVlan] = field(default_factory=dict)
    behind: Mapping[tuple[int, bytes], int] = field(default_factory=dict)

    def vlan_at(self, port: str, tag: int) -> int:
        """The switch's VLAN of a frame that passes ``port`` with this tag (0: none)."""
        return tag or self.vlans.get(port, PortVlan()).tag

    def place(self, vlan: int, address: bytes, otherwise: bytes) -> Place | None:
        """Where frames of that VLAN from ``address`` come in, or else those from ``otherwise``; None if that is nowhere known.

        A station that this switch has not heard is not at its own ports: it would have been heard there.
        """
        number = self.behind.get((vlan, address), self.behind.get((vlan, otherwise)))
        name = self.ports.get(number) if number is not None else None
        own = self.vlans.get(name) if name is not None else None
        if name is None or own is None:
            return None
        return Place(name, 0 if own.untagged and own.tag == vlan else vlan)


def addresses(text: str) -> dict[tuple[int, bytes], int]:
    """What ``ovs-appctl fdb/show`` says; lines that are not understood are left out."""
    found: dict[tuple[int, bytes], int] = {}
    for line in text.splitlines():
        if one := _FDB.match(line):
            number = _LOCAL if one[1] == "LOCAL" else int(one[1])
            found[int(one[2]), bytes.fromhex(one[3].replace(":", ""))] = number
    return found


def system_ports(text: str, bridge: str) -> dict[int, str]:
    """Of ``ovs-appctl dpif/show``: the ports of ``bridge`` that are network devices, if its datapath is the kernel's; else none."""
    found: dict[int, str] = {}
    datapath = here = ""
    for line in text.splitlines():
        if one := _DATAPATH.match(line):
            datapath = one[1]
        elif one := _BRIDGE.match(line):
            here = one[1]
        elif (one := _PORT.match(line)) and datapath == "system" and here == bridge and one[3] == "system":
            found[int(one[2])] = one[1]
    return found


def port_vlans(text: str) -> dict[str, PortVlan]:
    """Of ``ovs-vsctl --format=json --columns=name,tag,vlan_mode list Port``. ValueError if it is no such table."""
    try:
        rows = json.loads(text)["data"]
        return {str(name): _port_vlan(tag, mode) for name, tag, mode in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"ovs-vsctl printed no table of ports: {error}") from None


def _port_vlan(tag: Any, mode: Any) -> PortVlan:
    """An optional column is ``["set", []]`` when it is empty (RFC 7047, section 5.1)."""
    number = tag if isinstance(tag, int) else 0
    said = mode if isinstance(mode, str) else ("access" if number else "trunk")
    return PortVlan(number, said in _UNTAGGED_MODES)
