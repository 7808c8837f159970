"""What the fabric is, as its operator writes it down: a TOML file that hosts and controllers share. Pure.

.. code-block:: toml

    links = ["s1:s2 s2:s1", "s1:3 s3:1"]   # SWITCH:PORT SWITCH:PORT; a port's name or its OpenFlow number

    [switches]
    s1 = "tcp:192.0.2.1:6653"              # as Open vSwitch's tools write it
    s2 = "unix:/run/openvswitch/s2.mgmt"

    [hosts]
    a = "s1:host-a"                        # where a hypervisor's uplink is
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from controller_bridge import address
from controller_bridge.address import Address
from vmnet.errors import ConfigError


class End(NamedTuple):
    """A port of a switch, by name or number as it is written."""

    switch: str
    port: str

    def __str__(self) -> str:
        return f"{self.switch}:{self.port}"


@dataclass(frozen=True)
class Fabric:
    switches: Mapping[str, Address]
    links: tuple[tuple[End, End], ...] = ()
    hosts: Mapping[str, End] = field(default_factory=dict)

    def without(self, gone: Set[str]) -> Fabric:
        """As if these switches were not there."""
        return Fabric(
            {name: one for name, one in self.switches.items() if name not in gone},
            tuple(link for link in self.links if not {one.switch for one in link} & gone),
            {name: one for name, one in self.hosts.items() if one.switch not in gone},
        )


def read(file: Path) -> Fabric:
    """ConfigError if there is no such file, or it makes no sense."""
    try:
        found = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError(
            f"cannot read the fabric {file}: {error.strerror}", "see docs/openflow.md"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {' '.join(str(error).split())}") from None
    try:
        return parse(found)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error.message}", error.hint) from None


def parse(found: Mapping[str, Any]) -> Fabric:
    """ConfigError naming what is wrong."""
    unknown = found.keys() - {"switches", "links", "hosts"}
    if unknown:
        raise ConfigError(f"unknown setting {min(unknown)!r}", "there are links, [switches] and [hosts]")
    switches = {name: address.parse(text) for name, text in _texts(found, "switches").items()}
    if not switches:
        raise ConfigError("no [switches]", 'write NAME = "tcp:HOST:PORT" for each')
    links = tuple(_link(one, switches) for one in _list(found))
    ends = [end for link in links for end in link]
    hosts = {name: end(text, switches) for name, text in _texts(found, "hosts").items()}
    for one in [*ends, *hosts.values()]:
        if [*ends, *hosts.values()].count(one) > 1:
            raise ConfigError(f"port {one} is used twice", "a port leads to one place")
    return Fabric(switches, links, hosts)


def _texts(found: Mapping[str, Any], section: str) -> dict[str, str]:
    table = found.get(section, {})
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise ConfigError(f"[{section}] is no table of texts")
    return table


def _list(found: Mapping[str, Any]) -> list[str]:
    listed = found.get("links", [])
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise ConfigError("links is no list of texts", 'write links = ["s1:2 s2:1"]')
    return listed


def _link(text: str, switches: Mapping[str, Address]) -> tuple[End, End]:
    words = text.split()
    if len(words) != 2:
        raise ConfigError(f"{text!r} is no link", "write SWITCH:PORT SWITCH:PORT")
    return end(words[0], switches), end(words[1], switches)


def end(text: str, switches: Mapping[str, Any]) -> End:
    """``SWITCH:PORT``. ConfigError if it is none, or there is no such switch."""
    switch, _, port = text.partition(":")
    if not switch or not port:
        raise ConfigError(f"{text!r} is no port of a switch", "write SWITCH:PORT")
    if switch not in switches:
        raise ConfigError(f"there is no switch {switch!r}", f"known are {', '.join(sorted(switches))}")
    return End(switch, port)
