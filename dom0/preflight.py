"""May this VM go there? Every check names what is wrong and what to do; nothing is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dom0 import bridge_vlans, bridges, stretch, wiring
from dom0.claim import MOST_INTERFACES, address_field, bridge_name, field, uuid_field
from dom0.context import Context
from dom0.dataplane import classifier, netdev, tunnel
from dom0.reach.probes import path_mtu
from vmnet.domain_xml import DomainInfo, Interface
from vmnet.errors import PeerError, RefusedError, VmnetError

_MOST_NOTES, _LONGEST_NOTE = 8, 200


@dataclass(frozen=True)
class Lan:
    """A bridge of the VM's at the source, the LAN that belongs to there, and the VLANs by which the VM's ports are in it."""

    bridge: str
    segment: str
    vlans: frozenset[int]

    def to_json(self) -> list[Any]:
        return [self.bridge, self.segment, sorted(self.vlans)]


def lans(raw: object) -> tuple[Lan, ...]:
    """What :meth:`Lan.to_json` gave. PeerError if it is none, or more than 64."""
    if not isinstance(raw, list) or len(raw) > MOST_INTERFACES:
        raise PeerError("the peer's 'lans' are no list of LANs")
    return tuple(map(_lan, raw))


def _lan(one: object) -> Lan:
    if not isinstance(one, list) or len(one) != 3 or not isinstance(one[2], list):
        raise PeerError("the peer's 'lans' have one that is none")
    vlans = frozenset(vlan for vlan in one[2] if type(vlan) is int)
    if not vlans <= bridge_vlans.EVERY or len(vlans) != len(one[2]):
        raise PeerError("the peer's 'lans' have an impossible VLAN")
    return Lan(bridge_name(one[0]), field({"segment": one[1]}, "segment", str), vlans)


@dataclass(frozen=True)
class Question:
    """What the source asks the destination before anything moves."""

    vm: str
    name: str
    machine: str
    arch: str
    driver: str
    memory_kib: int
    tunnel_address: str
    lans: tuple[Lan, ...]
    mtu: int
    coming: bool
    """Not only asked: nothing but a refusal of ours keeps the VM from coming now."""

    @property
    def bridges(self) -> tuple[str, ...]:
        return tuple(one.bridge for one in self.lans)

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Question:
        """PeerError if it is malformed."""
        return cls(
            uuid_field(message, "vm"),
            field(message, "name", str),
            field(message, "machine", str),
            field(message, "arch", str),
            field(message, "driver", str),
            field(message, "memory_kib", int),
            address_field(message, "tunnel_address"),
            lans(message.get("lans")),
            field(message, "mtu", int, 0, 65535),
            message.get("coming") is True,
        )


def local_problems(info: DomainInfo, allow_unprotected: bool) -> list[str]:
    """What at the source speaks against it. Pure but for looking whether the taps are there."""
    if found := wiring.problems(info):
        return found
    hindered = [one for _one, tap in wiring.on_bridges(info) if (one := classifier.hindrance(tap))]
    if allow_unprotected:
        return hindered
    return hindered + [
        f"nothing can be held at interface {one}: connect it to a bridge, or accept its losses with --allow-unprotected"
        for one in wiring.unprotected(info)
    ]


async def answer(context: Context, peer: str, question: Question) -> list[str]:
    """At the destination: what speaks against this VM's coming from ``peer``. An empty list: nothing does."""
    checks = (_domain, _capabilities, _bridges, _vlans, _route, _journal)
    found = await asyncio.gather(
        *(_checked(check(context, question)) for check in checks),
        _checked(_tunnel_end(context, peer, question)),
    )
    return [problem for one in found for problem in one]


async def _tunnel_end(context: Context, peer: str, question: Question) -> list[str]:
    stretch.check_remote(peer, context.config.peers[peer], question.tunnel_address)
    return []


async def _checked(check: Awaitable[list[str]]) -> list[str]:
    try:
        return await check
    except VmnetError as error:
        return [str(error)]


async def _domain(context: Context, question: Question) -> list[str]:
    for name, uuid in await context.domains.names():
        if uuid == question.vm:
            return [f"VM {question.name!r} runs on {context.host} already"]
        if name == question.name:
            return [f"another VM on {context.host} is called {question.name!r}: rename one of them"]
    return []


async def _capabilities(context: Context, question: Question) -> list[str]:
    reason = await context.domains.unsupported(question.arch, question.machine, question.driver)
    return [f"{context.host} cannot run this guest: {reason}"] if reason else []


async def _bridges(context: Context, question: Question) -> list[str]:
    problems = []
    for source in dict.fromkeys(question.bridges):
        bridge = context.config.binding.get(source, source)
        if not await bridges.exists(bridge):
            problems.append(
                f"{context.host} has no bridge {bridge!r}: make it, or map {source!r} in [binding] there"
            )
        elif netdev.exists(bridge) and netdev.get_mtu(bridge) < question.mtu:
            problems.append(
                f"bridge {bridge!r} on {context.host} has MTU {netdev.get_mtu(bridge)}, the VM {question.mtu}"
            )
    return problems


async def _vlans(context: Context, question: Question) -> list[str]:
    """Of a LAN that is here as well; the VM reaches any other through its tunnel."""
    problems = []
    for lan in dict.fromkeys(question.lans):
        bridge = context.config.binding.get(lan.bridge, lan.bridge)
        if context.segment_of(bridge) != lan.segment or not await bridges.exists(bridge):
            continue
        for vlan in await bridge_vlans.missing(bridge, lan.vlans):
            problems.append(
                f"VLAN {vlan} is at no port of bridge {bridge!r} on {context.host} but VMs' taps: "
                "nobody would reach the VM there; add it to the bridge's uplink"
            )
    return problems


async def _route(context: Context, question: Question) -> list[str]:
    stretch.local_address(context.config.listen.tunnel_address, question.tunnel_address)
    return []


async def _journal(context: Context, _question: Question) -> list[str]:
    await context.store.space_check()
    return []


async def ask(
    context: Context, info: DomainInfo, destination: str, coming: bool, allow_unprotected: bool
) -> list[str]:
    """At the source: all checks on both sides. RefusedError with every reason; else notes that speak not against it."""
    problems = local_problems(info, allow_unprotected)
    if destination == context.host:
        problems.append(f"the VM is on {destination} already")
    peer = context.config.peers.get(destination)
    if peer is not None and not peer.libvirt_uri:
        problems.append(f"no libvirt_uri for {destination}: set [peers.{destination}] libvirt_uri")
    problems += await _far_from_home(context, info, destination)
    if problems or peer is None:
        raise RefusedError("; ".join(problems) or f"unknown host {destination!r}")
    local = stretch.local_address(context.config.listen.tunnel_address, peer.address)
    taps = wiring.on_bridges(info)
    mtu = max((netdev.get_mtu(tap) for _one, tap in taps), default=0)
    question = {
        "vm": info.uuid,
        "name": info.name,
        "machine": info.machine,
        "arch": info.arch,
        "driver": info.driver,
        "memory_kib": info.memory_kib,
        "tunnel_address": local,
        "lans": [one.to_json() for one in await _lans_of(context, taps)],
        "mtu": mtu,
        "coming": coming,
    }
    said: dict[str, Any]
    said, _ = await asyncio.gather(
        context.peers[destination].request("preflight", question, 10.0), context.store.space_check()
    )
    refusals = said.get("problems")
    if isinstance(refusals, list) and refusals:
        raise RefusedError("; ".join(str(one) for one in refusals))
    notes = _notes(said.get("notes"))
    if limited := context.limits.note(context.host):
        notes.append(limited)
    underlay = await asyncio.to_thread(path_mtu, peer.address)
    if underlay is not None and underlay < mtu + tunnel.outer_bytes(local):
        notes.append(
            f"MTU towards {destination} is {underlay}: full-size frames will be fragmented in the tunnel"
        )
    return notes


async def _lans_of(context: Context, taps: Sequence[tuple[Interface, str]]) -> list[Lan]:
    """By bridge."""
    ports: dict[str, list[str]] = {}
    for one, tap in taps:
        if one.bridge:
            ports.setdefault(one.bridge, []).append(tap)
    return [
        Lan(bridge, context.segment_of(bridge), await _vlans_that_leave(bridge, there))
        for bridge, there in ports.items()
    ]


async def _vlans_that_leave(bridge: str, taps: Sequence[str]) -> frozenset[int]:
    """The VLANs of these ports that leave the bridge here. None if it does not say: then they are not checked."""
    try:
        places = [await bridges.place_of(tap, bridge) for tap in taps if netdev.exists(tap)]
        inside = frozenset().union(*map(bridge_vlans.of_port, places))
        return inside.difference(await bridge_vlans.missing(bridge, inside))
    except (OSError, VmnetError):
        return frozenset()


def _notes(said: object) -> list[str]:
    """A peer's notes: a few short lines of text, whatever it sends."""
    lines = [one for one in said if isinstance(one, str)] if isinstance(said, list) else []
    return ["".join(filter(str.isprintable, one))[:_LONGEST_NOTE] for one in lines[:_MOST_NOTES]]


async def _far_from_home(context: Context, info: DomainInfo, destination: str) -> list[str]:
    """A stretched VM hangs on its old host by one tunnel; a chain of them is not made."""
    binding = await context.store.binding_get(info.uuid)
    if binding is None or not binding.home or binding.home in (context.host, destination):
        return []
    return [f"the VM's LAN is at {binding.home}: migrate it there first"]
