"""A client that roams: its link goes from one switch and comes up at another, with the client's interface as it was.

The lab's record says so before anything is changed (``State.moving``). Killed at any instant, the next move of that client finishes
what is unfinished, from the record; until then ``vmnet lab status`` calls the lab damaged.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from vmnet.errors import LabError
from vmnet.lab import arrival, interface, net, offload, ovs, places
from vmnet.lab.command import run
from vmnet.lab.interface import Interface
from vmnet.lab.lab import Lab
from vmnet.lab.paths import LabPaths, check_name
from vmnet.lab.places import Attachment
from vmnet.lab.state import lab_lock, load, locked, save
from vmnet.lab.topology import End
from vmnet.lab.wait import wait_for


@dataclass(frozen=True)
class Moved:
    lab: str
    client: str
    """As ``node:port``, like the others."""
    source: str
    target: str
    changed: bool
    """False: it was there already."""
    away_ms: float
    """How long the client had no link."""


def move(lab_name: str, client: str, place: str) -> Moved:
    """Plug a client in at ``SWITCH:PORT``, or anywhere at ``SWITCH``.

    Raises NotFoundError or RefusedError when there is no such client or port or it is in use (nothing is changed then), LabError when
    the lab is not up or the move fails half way: again, or to another port, finishes it.
    """
    paths = LabPaths(check_name(lab_name))
    load(paths)  # a lab that is not there must not get a lock
    with locked(lab_lock(paths), f"lab '{lab_name}'"):
        lab = Lab(load(paths))
        if not lab.state.complete:
            raise LabError(f"lab '{lab_name}' is not up", f"try 'vmnet lab up {lab.state.source}'")
        here = places.attachment(lab.topology, client)
        there = places.target(lab.topology, here, place)
        key = places.name(here.client)
        unfinished = lab.state.moving.get(key)
        if there == here.switch and unfinished is None:
            return Moved(lab_name, key, places.name(there), places.name(there), False, 0.0)
        was = _ends(unfinished) if unfinished else [here.switch]
        kept = interface.checked(unfinished.get("interface")) if unfinished else _read(lab, here)
        old = list(dict.fromkeys([*was, here.switch]))
        _record(lab, key, old, there, kept)
        away_s = _carry_out(lab, old, Attachment(here.client, there), kept)
        _finished(lab, key)
    return Moved(lab_name, key, places.name(was[0]), places.name(there), True, round(away_s * 1000, 1))


def _ends(unfinished: Mapping[str, Any]) -> list[End]:
    """Where an end of the old link may still be. Raises LabError when the record is damaged."""
    found = unfinished.get("ends")
    if not isinstance(found, list) or not found:
        raise interface.damaged("it names no port")
    return [places.parse(str(one)) for one in found]


def _read(lab: Lab, here: Attachment) -> Interface:
    return interface.read(lab.node(here.client.node), here.client.port)


def _record(lab: Lab, key: str, ends: list[End], there: End, kept: Interface) -> None:
    """Also which ports may have an end of the old link: a move that failed may be followed by one to elsewhere."""
    entry = {"ends": [places.name(end) for end in ends], "interface": asdict(kept)}
    lab.state = replace(
        lab.state,
        places={**lab.state.places, key: places.name(there)},
        moving={**lab.state.moving, key: entry},
    )
    save(lab.paths, lab.state)


def _finished(lab: Lab, key: str) -> None:
    left = {one: entry for one, entry in lab.state.moving.items() if one != key}
    lab.state = replace(lab.state, moving=left)
    save(lab.paths, lab.state)


def _carry_out(lab: Lab, old: Iterable[End], new: Attachment, kept: Interface) -> float:
    """Break, then make, as a client that walks does. Seconds between the two."""
    started = time.monotonic()
    try:
        for end in old:
            _unplug(lab, end)
        _plug_in(lab, new, kept)
    except LabError as error:
        hint = f"{new.client.node} has no link now: move it again, or to another port"
        raise LabError(f"the move broke off: {error.message}", hint) from None
    return time.monotonic() - started


def _unplug(lab: Lab, end: End) -> None:
    """The switch sees the link go down, then the port goes; the veth's other end goes with it. Nothing if it is not there."""
    node = lab.node(end.node)
    there = interface.exists(node, end.port)
    if there:
        net.batch(node, [f"link set dev {end.port} down"])
    bridge = node.spec.bridges[0]
    if bridge.kind == "ovs":
        ovs.remove_port(node, bridge, end.port)
    if there:
        net.batch(node, [f"link del dev {end.port}"])


def _plug_in(lab: Lab, new: Attachment, kept: Interface) -> None:
    client, switch = lab.node(new.client.node), lab.node(new.switch.node)
    netns_of = {node.name: node.netns_name for node in (client, switch)}
    run(["ip", *interface.link_line(kept, new.client, new.switch, netns_of).split()])
    if new.client.port in client.spec.plain_checksums:
        offload.turn_off(client.netns_path, new.client.port)
    # Up first: a Linux bridge forwards at once only on a port that is in operation when it comes.
    net.batch(client, [f"link set dev {new.client.port} up"])
    net.batch(switch, [f"link set dev {new.switch.port} up"])
    wait_for(
        f"{places.name(new.switch)} to be up", lambda: interface.operates(switch, new.switch.port), 5, 0.002
    )
    bridge = switch.spec.bridges[0]
    if bridge.kind == "ovs":
        ovs.add_port(switch, bridge, new.switch.port)
    else:
        net.batch(switch, [f"link set dev {new.switch.port} master {bridge.name}"])
    arrival.announce(client, new.client.port, kept.mac)
    net.batch(
        client, list(kept.lines)
    )  # addresses last: nothing is sent into the void, to be asked again a second later
    net.batch(client, list(kept.lines6), "-6")
