"""What an OVN port says while its VM moves, and what it says afterwards. Pure.

A Logical_Switch_Port may be on two chassis (``requested-chassis=A,B``; OVN 22.06): A is its main one, B an additional one. What was
there before is kept in the port's ``external_ids``, so that any process which knows the migration can put it back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from vmnet.errors import RefusedError

REQUESTED: Final = "requested-chassis"
ACTIVATION: Final = "activation-strategy"
KEPT: Final = "vmnet-before"
"""In ``external_ids``: the migration's id and what the two options were, as JSON."""

Values = dict[str, str | None]
"""By key; None: it is not there."""


class Ends(NamedTuple):
    """The two chassis."""

    source: str
    destination: str


@dataclass(frozen=True)
class Port:
    """Of a Logical_Switch_Port what matters here. ``addresses``: also those OVN chose itself."""

    name: str
    type: str
    addresses: tuple[str, ...]
    options: Mapping[str, str]
    external_ids: Mapping[str, str]

    def has(self, mac: str) -> bool:
        """``addresses`` are as "MAC IP IP", "MAC dynamic", "unknown"."""
        return any(one.split(" ", 1)[0].lower() == mac for one in self.addresses if one)


class Place(NamedTuple):
    """Of a Port_Binding: where the port is."""

    chassis: str
    additional: frozenset[str] = frozenset()


NOWHERE: Final = Place("")


class Change(NamedTuple):
    """Keys to set or to remove in the port's ``options`` and ``external_ids``; all others stay."""

    options: Values
    external_ids: Values


NOTHING: Final = Change({}, {})


class Before(NamedTuple):
    """What a migration found on a port."""

    move: str
    options: Values


def before(port: Port) -> Before | None:
    """None: no migration of ours. RefusedError if it cannot be read."""
    text = port.external_ids.get(KEPT)
    if text is None:
        return None
    found = _loaded(text)
    if found is None:
        raise RefusedError(
            f"port {port.name}: its external_ids:{KEPT} is not as vmnet wrote it",
            f"set its {REQUESTED} by hand and remove the key: `ovn-nbctl remove logical_switch_port {port.name} external_ids {KEPT}`",
        )
    move, requested, activation = found
    return Before(move, {REQUESTED: requested, ACTIVATION: activation})


def _loaded(text: str) -> tuple[str, str | None, str | None] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match found:
        case [str(move), str() | None as requested, str() | None as activation]:
            return move, requested, activation
    return None


def find(ports: Sequence[Port], macs: Iterable[str], configured: Mapping[str, str]) -> list[Port]:
    """The port of each MAC, once each. RefusedError if one has none, or several."""
    found: dict[str, Port] = {}
    for mac in macs:
        one = _find(ports, mac.lower(), configured)
        found[one.name] = one
    return list(found.values())


def _find(ports: Sequence[Port], mac: str, configured: Mapping[str, str]) -> Port:
    name = configured.get(mac)
    fit = [one for one in ports if (one.name == name if name else one.has(mac))]
    if not fit:
        what = f"no port {name!r}" if name else f"no port with the address {mac}"
        raise RefusedError(f"OVN has {what}", "name it in [rerouter.settings] ports")
    if len(fit) > 1:
        names = ", ".join(sorted(one.name for one in fit))
        raise RefusedError(
            f"{mac} is the address of several ports: {names}", "choose one in [rerouter.settings] ports"
        )
    if fit[0].type:
        raise RefusedError(f"port {fit[0].name} is no VM's: its type is {fit[0].type!r}")
    return fit[0]


def check_known(known: Iterable[str], wanted: Sequence[str]) -> None:
    """RefusedError if OVN lacks one of these chassis, or the first two of them, where the VM comes from and goes to, are one."""
    there = sorted(known)
    for one in wanted:
        if one not in there:
            raise RefusedError(
                f"OVN has no chassis {one!r}",
                f"it has {', '.join(there) or 'none'}: name the hosts' in [rerouter.settings] chassis",
            )
    if wanted[0] == wanted[1]:
        raise RefusedError(f"both hosts are chassis {wanted[0]}", "correct [rerouter.settings] chassis")


def prepared(port: Port, move: str, ends: Ends, place: Place, activation: str) -> Change:
    """On both chassis. RefusedError if the port is not at the source alone, or moves already."""
    kept = before(port)
    if kept is None:
        _check_still(port, ends, place)
        kept = Before(move, {key: port.options.get(key) for key in (REQUESTED, ACTIVATION)})
    elif kept.move != move:
        raise RefusedError(
            f"port {port.name} moves already (migration {kept.move})",
            "finish that migration or roll it back first",
        )
    return Change(
        {
            REQUESTED: f"{ends.source},{ends.destination}",
            ACTIVATION: None if activation == "none" else activation,
        },
        {KEPT: json.dumps([kept.move, kept.options[REQUESTED], kept.options[ACTIVATION]])},
    )


def _check_still(port: Port, ends: Ends, place: Place) -> None:
    if "," in port.options.get(REQUESTED, ""):
        raise RefusedError(
            f"port {port.name} is on several chassis already: {port.options[REQUESTED]}",
            "somebody else moves it: let one of the two do it",
        )
    if place.chassis != ends.source:
        where = f"on chassis {place.chassis}" if place.chassis else "on no chassis"
        raise RefusedError(
            f"port {port.name} is {where}, not on {ends.source}",
            "name the hosts' chassis in [rerouter.settings] chassis",
        )


def both(port: Port, main: str, additional: str) -> Change:
    """On both, and both receive at once."""
    return Change({REQUESTED: f"{main},{additional}", ACTIVATION: None}, {})


def leaders(ports: Iterable[Port], places: Mapping[str, Place], target: str) -> dict[str, str]:
    """By port of a migration, its main chassis, where that is another one than ``target``."""
    main = {one.name: places.get(one.name, NOWHERE).chassis for one in ports if before(one)}
    return {name: chassis for name, chassis in main.items() if chassis not in ("", target)}


def shrunk(port: Port, move: str, chassis: str) -> Change:
    """On one chassis; what was before is still kept. RefusedError if ``move`` has not prepared it."""
    of_move(port, move)
    return Change({REQUESTED: chassis, ACTIVATION: None}, {})


def finished(port: Port, move: str, ends: Ends) -> Change:
    """At the destination; nothing else is left of the migration. None of it is there: it is done already."""
    if before(port) is None and port.options.get(REQUESTED) == ends.destination:
        return NOTHING
    kept = of_move(port, move)
    return Change({REQUESTED: ends.destination, ACTIVATION: kept.options[ACTIVATION]}, {KEPT: None})


def restored(port: Port, move: str) -> Change:
    """Exactly as before ``prepared``."""
    return Change(of_move(port, move).options, {KEPT: None})


def moved_by(ports: Iterable[Port], move: str, macs: Iterable[str]) -> list[Port]:
    """Those with something kept of ``move``. RefusedError if what is kept on a port of ``macs`` cannot be read."""
    return [one for one in ports if KEPT in one.external_ids and _is(one, move, macs)]


def _is(port: Port, move: str, macs: Iterable[str]) -> bool:
    try:
        kept = before(port)
    except RefusedError:
        if any(port.has(mac.lower()) for mac in macs):
            raise
        return False
    return kept is not None and kept.move == move


def of_move(port: Port, move: str) -> Before:
    """RefusedError if ``move`` has not prepared it."""
    kept = before(port)
    if kept is None or kept.move != move:
        other = "by no migration" if kept is None else f"by migration {kept.move}"
        raise RefusedError(f"port {port.name} has been prepared {other}, not by {move}", "prepare it first")
    return kept


def not_on_both(places: Mapping[str, Place], main_chassis: Mapping[str, str], additional: str) -> str:
    """What is missing until each port is on both its chassis; "": nothing."""
    for name, main in main_chassis.items():
        place = places.get(name, NOWHERE)
        if place.chassis != main:
            return f"port {name} did not stay on chassis {main}"
        if additional not in place.additional:
            return f"port {name} was not taken by chassis {additional} as well"
    return ""


def changing_places(places: Mapping[str, Place], old_main: Mapping[str, str], main: str) -> str:
    """Until each port has ``main``, and its old main chassis as additional one."""
    lacks = (not_on_both(places, {name: main}, old) for name, old in old_main.items())
    return next(filter(None, lacks), "")


def not_at(places: Mapping[str, Place], names: Iterable[str], chassis: str) -> str:
    for name in names:
        if places.get(name, NOWHERE).chassis != chassis:
            return f"port {name} was not taken by chassis {chassis}"
    return ""


def not_left(places: Mapping[str, Place], names: Iterable[str]) -> str:
    """Until each port is on its main chassis alone."""
    for name in names:
        rest = places.get(name, NOWHERE).additional
        if rest:
            return f"port {name} was not left by chassis {', '.join(sorted(rest))}"
    return ""


def unconfirmed(seen: Mapping[str, int], wanted: int, chassis: Iterable[str]) -> str:
    """``seen``: Chassis_Private.nb_cfg by chassis."""
    late = [one for one in chassis if seen.get(one, -1) < wanted]
    return f"chassis {', '.join(late)} did not confirm configuration {wanted}" if late else ""
