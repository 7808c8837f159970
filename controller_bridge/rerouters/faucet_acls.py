"""Where packets for a VM that moves go, as ACLs in a file of ours that Faucet includes. Pure.

Each interface has an ACL of ours, ``vmnet-DATAPATH-NUMBER``. By what interface a packet came says which way it is on, so that in
whatever order Faucet tells the switches no packet is sent back (as in Reitblatt et al., "Abstractions for Network Update", 2012).
On a datapath where the ways to the two hosts part, P is the interface towards the old host, Q the one towards the new:

=========  ======================  ==========================================================================
stage      a packet that came by    goes
=========  ======================  ==========================================================================
prepared   P                        to Q: nothing for the VM comes from there before the cut
cut        any other but Q          to Q
both       Q                        where Faucet has learned the VM to be: to P, until all have been told
=========  ======================  ==========================================================================

A packet that was sent on the old way before the cut stays on it to its end, one sent after it stays on the new.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.faucet_config import Fabric, Interface
from vmnet.errors import ConfigError, RefusedError

Hosts = Mapping[str, Mapping[str, str]]
"""Host -> datapath -> its interface towards the host."""

_ID = re.compile(r"[\w.:@-]+")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


class Stage(IntEnum):
    NONE = 0
    PREPARED = 1
    CUT = 2


class Entry(NamedTuple):
    """Packets for ``mac`` that came to ``datapath`` by ``in_port`` go to ``out_port``. ``move``: whose it is."""

    datapath: str
    in_port: int
    mac: str
    out_port: int
    move: str


class Turn(NamedTuple):
    """A datapath on which the way to the old host and the way to the new one differ."""

    datapath: str
    old: Interface
    new: Interface


def acl_name(datapath: str, number: int) -> str:
    return f"vmnet-{datapath}-{number}"


def check_hosts(hosts: Hosts, fabric: Fabric) -> None:
    """ConfigError if they do not name the same datapaths, or what they name is not there."""
    named = {host: set(one) for host, one in hosts.items()}
    whole = set().union(*named.values())
    for host, ways in hosts.items():
        if missing := whole - named[host]:
            raise ConfigError(
                f"host {host}: no interface given for {', '.join(sorted(missing))}",
                "say for each host by which interface of every datapath it is reached",
            )
        for datapath, called in ways.items():
            fabric.interface(datapath, called)


def turns(move: Move, hosts: Hosts, fabric: Fabric) -> list[Turn]:
    """ConfigError if a host is not known."""
    for host in (move.source, move.destination):
        if host not in hosts:
            raise ConfigError(
                f"no ways to host {host!r} are configured", f"add [rerouter.settings.hosts.{host}]"
            )
    found = []
    for datapath, called in sorted(hosts[move.source].items()):
        old = fabric.interface(datapath, called)
        new = fabric.interface(datapath, hosts[move.destination][datapath])
        if old.number != new.number:
            found.append(Turn(datapath, old, new))
    return found


def check_acls(ways: Iterable[Turn], fabric: Fabric) -> None:
    """RefusedError if an interface has no ACL of ours, or none after it that lets the rest through."""
    for datapath, _, _ in ways:
        for one in fabric.datapaths[datapath].values():
            name = acl_name(datapath, one.number)
            if name not in one.acls[:-1]:
                raise RefusedError(
                    f"{datapath}, interface {one.name}: {name} is not in acls_in, with another ACL after it",
                    f"give it  acls_in: [{name}, ALLOWED]  where the ACL ALLOWED allows the rest",
                )


def wanted(stage: Stage, move: Move, ways: Iterable[Turn], fabric: Fabric) -> set[Entry]:
    """All entries of a move at a stage."""
    found = set()
    for datapath, old, new in ways if stage else ():
        entered = fabric.datapaths[datapath].keys() - {new.number} if stage is Stage.CUT else {old.number}
        found |= {
            Entry(datapath, number, mac.lower(), new.number, move.id)
            for mac in move.macs
            for number in entered
        }
    return found


def staged(
    entries: Iterable[Entry], stage: Stage, move: Move, ways: Iterable[Turn], fabric: Fabric
) -> set[Entry]:
    """``entries`` with this move's as they are at ``stage``. RefusedError if another move has one of its MACs."""
    macs = {one.lower() for one in move.macs}
    if bad := [mac for mac in macs if not _MAC.fullmatch(mac)]:
        raise RefusedError(f"{bad[0]!r} is no MAC address")
    if not _ID.fullmatch(move.id):
        raise RefusedError(f"{move.id!r} is no migration's id")
    others = {one for one in entries if one.move != move.id}
    if taken := [one for one in others if one.mac in macs]:
        raise RefusedError(
            f"{taken[0].mac} is being moved already, by {taken[0].move}", "finish or roll back that one first"
        )
    return others | wanted(stage, move, ways, fabric)


def at_stage(
    entries: Iterable[Entry], stage: Stage, move: Move, ways: Iterable[Turn], fabric: Fabric
) -> bool:
    own = {one for one in entries if one.move == move.id}
    return own == wanted(stage, move, ways, fabric)
