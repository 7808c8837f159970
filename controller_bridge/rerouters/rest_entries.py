"""Where packets for a VM that moves go, as entries that are given to a controller over REST (Ryu's ``ofctl_rest``). Pure.

On a switch where the ways to the two hosts part, P is the port towards the old host, Q the one towards the new. Ours come before
those that are there already, which are not touched before the end:

=========  ==============================  =================================================================
stage      a packet for the VM             goes
=========  ==============================  =================================================================
prepared   that came by P                  to Q: nothing for the VM comes from there before the cut
prepared   that came by Q                  to P: what is under way on the old way stays on it
cut        that came by any other port     to Q: one entry, so there is no moment between
finished   all                             by the switch's own entries for the VM, which send to Q from now on
=========  ==============================  =================================================================
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from controller_bridge.rerouters.base import Move
from vmnet.errors import ConfigError, PeerError, RefusedError

Hosts = Mapping[str, Mapping[int, int]]
"""Host -> datapath id -> port towards the host."""
WHOLE: Final = 0xFFFFFFFFFFFFFFFF
_OURS: Final = 0x766D << 48
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


class Turn(NamedTuple):
    datapath: int
    old: int
    new: int


class Entry(NamedTuple):
    """An entry of a switch, as Ryu tells it. ``output``: its port if that is all it does, or None."""

    priority: int
    match: Mapping[str, Any]
    output: int | None
    cookie: int
    packets: int
    idle_s: int = 0
    hard_s: int = 0


def cookie(move: Move) -> int:
    """By which our entries of a move are told from all others."""
    return _OURS | int.from_bytes(hashlib.sha256(move.id.encode()).digest()[:6], "big")


def turns(move: Move, hosts: Hosts) -> list[Turn]:
    """ConfigError if a host is not known, RefusedError for a MAC that is none."""
    for host in (move.source, move.destination):
        if host not in hosts:
            raise ConfigError(
                f"no ways to host {host!r} are configured", f"add [rerouter.settings.hosts.{host}]"
            )
    for mac in move.macs:
        if not _MAC.fullmatch(mac.lower()):
            raise RefusedError(f"{mac!r} is no MAC address")
    new = hosts[move.destination]
    return [Turn(one, port, new[one]) for one, port in sorted(hosts[move.source].items()) if port != new[one]]


def prepared(move: Move, turn: Turn, priority: int, table: int) -> list[dict[str, Any]]:
    """What is to be POSTed to ``/stats/flowentry/add``."""
    ways = ((turn.old, turn.new), (turn.new, turn.old))
    return [
        _body(move, turn, table, priority + 1, {"in_port": come, "eth_dst": mac.lower()}, go)
        for mac in move.macs
        for come, go in ways
    ]


def cut(move: Move, turn: Turn, priority: int, table: int) -> list[dict[str, Any]]:
    return [_body(move, turn, table, priority, {"eth_dst": mac.lower()}, turn.new) for mac in move.macs]


def _body(
    move: Move, turn: Turn, table: int, priority: int, match: Mapping[str, Any], port: int
) -> dict[str, Any]:
    return {
        "dpid": turn.datapath,
        "cookie": cookie(move),
        "table_id": table,
        "priority": priority,
        "match": match,
        **_to(port),
    }


def _to(port: int) -> dict[str, Any]:
    """For OpenFlow 1.0 to 1.3 Ryu reads ``actions``, for later ones ``instructions``."""
    output = [{"type": "OUTPUT", "port": port}]
    return {"actions": output, "instructions": [{"type": "APPLY_ACTIONS", "actions": output}]}


def redirected(entry: Entry, turn: Turn, table: int) -> dict[str, Any]:
    """The switch's own entry, towards the new host, for ``/stats/flowentry/modify_strict``."""
    return {
        "dpid": turn.datapath,
        "cookie": entry.cookie,
        "cookie_mask": WHOLE,
        "table_id": table,
        "priority": entry.priority,
        "idle_timeout": entry.idle_s,
        "hard_timeout": entry.hard_s,
        "match": entry.match,
        **_to(turn.new),
    }


def removed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Of ``/stats/flowentry/delete_strict``: what ``body`` has added, and nothing else."""
    return {**body, "cookie_mask": WHOLE}


def entries_in(answer: Any, datapath: int) -> list[Entry]:
    """Of ``/stats/flow/DPID``. PeerError if it is something else."""
    try:
        return [_entry(one) for one in answer[str(datapath)]]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise PeerError(
            f"the controller's answer about switch {datapath} is not one of ofctl_rest's"
        ) from None


def _entry(said: Any) -> Entry:
    output = _output(said["actions"]) if "actions" in said else _output_of(said["instructions"])
    numbers = [int(said[name]) for name in ("cookie", "packet_count", "idle_timeout", "hard_timeout")]
    return Entry(int(said["priority"]), dict(said["match"]), output, *numbers)


def _output(actions: list[str]) -> int | None:
    """As Ryu says it for OpenFlow 1.0 to 1.3."""
    if len(actions) != 1 or not actions[0].startswith("OUTPUT:"):
        return None
    port = actions[0].removeprefix("OUTPUT:")
    return int(port) if port.isdecimal() else None


def _output_of(instructions: list[dict[str, Any]]) -> int | None:
    """As Ryu says it for OpenFlow 1.4 and later."""
    if len(instructions) != 1 or instructions[0].get("type") != "APPLY_ACTIONS":
        return None
    actions = instructions[0]["actions"]
    port = actions[0].get("port") if len(actions) == 1 and actions[0].get("type") == "OUTPUT" else None
    return port if isinstance(port, int) else None


def of_mac(entry: Entry, macs: Iterable[str]) -> bool:
    """Ryu says dl_dst for OpenFlow 1.0 to 1.3, eth_dst for later."""
    said = entry.match.get("dl_dst", entry.match.get("eth_dst"))
    return isinstance(said, str) and said.lower() in {one.lower() for one in macs}


def has(entries: Iterable[Entry], body: Mapping[str, Any]) -> bool:
    """Whether what was asked for is there."""
    return any(
        one.cookie == body["cookie"]
        and one.priority == body["priority"]
        and of_mac(one, [body["match"]["eth_dst"]])
        and one.match.get("in_port") == body["match"].get("in_port")
        and one.output == body["actions"][0]["port"]
        for one in entries
    )


def check_own(entries: Iterable[Entry], move: Move, turn: Turn, priority: int) -> None:
    """RefusedError if a switch's own entries for the VM are not such as can be turned by us at the end."""
    for one in entries:
        if not of_mac(one, move.macs) or one.cookie == cookie(move):
            continue
        where = f"switch {turn.datapath}: an entry for {move.vm}"
        if one.priority >= priority and one.cookie >> 48 == _OURS >> 48:
            raise RefusedError(f"{where} is of another move", "finish or roll back that one first")
        if one.priority >= priority:
            raise RefusedError(
                f"{where} has priority {one.priority}", f"give a `priority` above it; it is {priority}"
            )
        if one.output is None:
            raise RefusedError(
                f"{where} does more than send to a port", "vmnet cannot say that again over REST"
            )
        if one.output != turn.old:
            raise RefusedError(
                f"{where} sends to port {one.output}, not to {turn.old}, where {move.source} is",
                "look at [rerouter.settings.hosts]",
            )
