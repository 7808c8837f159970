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
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple

from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.faucet_config import Fabric, Interface
from vmnet.errors import ConfigError, RefusedError

Hosts = Mapping[str, Mapping[str, str]]
"""Host -> datapath -> its interface towards the host."""

_NOBODY: Final = "00:00:00:00:00:00"
_HEAD: Final = "# vmnet's: where packets for VMs that move go. Written anew by every move; do not edit.\n"
_ID = re.compile(r"[\w.:@-]+")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_OWNER = re.compile(r"vmnet (\S+)")
_NAME = re.compile(r"vmnet-(.+)-(\d+)")


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
    """ConfigError if a host is not known; RefusedError if an interface has no ACL of ours, or nothing that lets the rest through."""
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
            _check_acls(datapath, fabric.datapaths[datapath].values())
    return found


def _check_acls(datapath: str, interfaces: Iterable[Interface]) -> None:
    for one in interfaces:
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


def written(entries: Iterable[Entry], fabric: Fabric, vid: int | None) -> str:
    """The file. The same entries give the same bytes. ConfigError if a tag is needed and ``vid`` is not known."""
    own: dict[str, list[Entry]] = {}
    for one in sorted(entries):
        own.setdefault(acl_name(one.datapath, one.in_port), []).append(one)
    lines = [_HEAD, "acls:\n"]
    for datapath, interfaces in sorted(fabric.datapaths.items()):
        for number, interface in sorted(interfaces.items()):
            name = acl_name(datapath, number)
            if name in interface.acls:
                lines.append(f"  {name}:\n")
                lines += [_rule(entry, interfaces, vid) for entry in own.pop(name, [])]
                # Faucet refuses an ACL without rules; and one that always matches the same fields leaves its tables as they are.
                lines.append(
                    f'  - rule: {{dl_dst: "{_NOBODY}"{_tag(interface, vid)}, actions: {{allow: 0}}}}\n'
                )
    if own:
        raise ConfigError(
            f"no interface has the ACL {min(own)}", "put back what was taken from Faucet's configuration"
        )
    if len(lines) == 2:
        raise ConfigError(
            "no interface has an ACL of vmnet's", "give each  acls_in: [vmnet-DATAPATH-NUMBER, ALLOWED]"
        )
    return "".join(lines)


def _rule(entry: Entry, interfaces: Mapping[int, Interface], vid: int | None) -> str:
    come, go = interfaces[entry.in_port], interfaces[entry.out_port]
    output = f"{_tagging(come, go, vid)}port: {entry.out_port}"
    return (
        f'  - rule: {{description: "vmnet {entry.move}", dl_dst: "{entry.mac}"{_tag(come, vid)}, '
        f"actions: {{output: {{{output}}}}}}}\n"
    )


def _tag(come: Interface, vid: int | None) -> str:
    """Switches pop a tag only where the match says that there is one (OpenFlow 1.3, 7.2.3.8)."""
    return f", vlan_vid: {vid}" if vid is not None and come.tags(vid) else ""


def _tagging(come: Interface, go: Interface, vid: int | None) -> str:
    if vid is None:
        if come.tagged or go.tagged or come.stack or go.stack:
            raise ConfigError(
                f"interfaces {come.name} and {go.name} carry tags: of which VLAN are the VMs?",
                'add  vlan = "NAME"  to [rerouter.settings]',
            )
        return ""
    if come.tags(vid) == go.tags(vid):
        return ""
    return "pop_vlans: 1, " if come.tags(vid) else f"vlan_vid: {vid}, "


def entries_in(acls: Mapping[str, Any]) -> Iterator[Entry]:
    """Of the table ``acls`` of our own file, as :func:`written` made it. ConfigError if somebody else did."""
    for name, rules in acls.items():
        place = _NAME.fullmatch(name)
        try:
            for one in rules:
                rule = one["rule"]
                if rule["dl_dst"] == _NOBODY:
                    continue
                owner = _OWNER.fullmatch(rule["description"])
                assert place and owner
                port = int(rule["actions"]["output"]["port"])
                yield Entry(place[1], int(place[2]), rule["dl_dst"], port, owner[1])
        except (AssertionError, KeyError, TypeError, ValueError):
            raise ConfigError(
                f"vmnet's file for Faucet: {name} is not as vmnet writes it", "move the file away"
            ) from None
