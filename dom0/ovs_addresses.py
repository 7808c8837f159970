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
class SwitchPort:
    """``tag``: the port's own VLAN, 0 if it has none; ``untagged``: frames of that one have no tag there.

    A bond is one port with several devices.
    """

    name: str
    tag: int = 0
    untagged: bool = False


@dataclass(frozen=True)
class Place:
    """``vlan``: in whose tag a frame that comes in at ``port`` has to be; 0: it has none."""

    port: str
    vlan: int


@dataclass(frozen=True)
class SwitchAddresses:
    """``devices``: names of those ports that are devices of the kernel, by OpenFlow number; ``taps``: those of them that are guests'.

    ``ports``: the port of each device. ``behind``: a port's number, by VLAN and address.
    """

    devices: Mapping[int, str] = field(default_factory=dict)
    ports: Mapping[str, SwitchPort] = field(default_factory=dict)
    behind: Mapping[tuple[int, bytes], int] = field(default_factory=dict)
    taps: frozenset[str] = frozenset()

    def vlan_at(self, device: str, tag: int) -> int:
        """The switch's VLAN of a frame that passes ``device`` with this tag (0: none)."""
        port = self.ports.get(device)
        return tag or (port.tag if port is not None else 0)

    def place(self, vlan: int, address: bytes, otherwise: bytes) -> Place | None:
        """Where frames of that VLAN from ``address`` come in, or else those from ``otherwise``, or else all from outside.

        None if that is not known. A station that this switch has not heard is not at its own ports: it would have been heard there.
        """
        number = self.behind.get((vlan, address), self.behind.get((vlan, otherwise)))
        device = self._uplink() if number is None else self.devices.get(number)
        port = self.ports.get(device) if device is not None else None
        if device is None or port is None:
            return None
        return Place(device, 0 if port.untagged and port.tag == vlan else vlan)

    def _uplink(self) -> str | None:
        """A device of the only port that is no guest's; None if there are more."""
        outside = [self.devices[number] for number in sorted(self.devices)]
        outside = [one for one in outside if one not in self.taps and one in self.ports]
        return outside[0] if len({self.ports[one].name for one in outside}) == 1 else None


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


def switch_ports(ports: str, interfaces: str) -> dict[str, SwitchPort]:
    """The port of each interface, of ``ovs-vsctl --format=json list``. ValueError if they are no such tables.

    Columns ``name,tag,vlan_mode,interfaces`` of Port, and ``_uuid,name`` of Interface.
    """
    try:
        names = {uuid[1]: str(name) for uuid, name in json.loads(interfaces)["data"]}
        found = {}
        for name, tag, mode, members in json.loads(ports)["data"]:
            port = _switch_port(str(name), tag, mode)
            found.update({names[one[1]]: port for one in _elements(members) if one[1] in names})
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"ovs-vsctl printed no table of ports: {error}") from None
    return found


def _elements(column: Any) -> list[Any]:
    """A set of one is written as its element (RFC 7047, section 5.1)."""
    return column[1] if column[0] == "set" else [column]


def _switch_port(name: str, tag: Any, mode: Any) -> SwitchPort:
    """An optional column is ``["set", []]`` when it is empty."""
    number = tag if isinstance(tag, int) else 0
    said = mode if isinstance(mode, str) else ("access" if number else "trunk")
    return SwitchPort(name, number, said in _UNTAGGED_MODES)
