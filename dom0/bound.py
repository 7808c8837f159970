"""A VM's binding to its new host: what both sides of a migration have agreed on, and what the destination says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from dom0.claim import Agreement
from vmnet.errors import PeerError
from vmnet.store import Binding, join_segments

_LONGEST_NAMES: Final = 64 * 16
"""Of devices, with commas: one an interface."""


def agreed_binding(agreement: Agreement, vm: str, name: str, host: str) -> Binding:
    """To ``host``, but for the names of its bridge and ports. Its generation is the one that this binding follows."""
    stretched = any(wire.stretched for wire in agreement.wires)
    return Binding(
        vm,
        name,
        host,
        macs=tuple(wire.mac for wire in agreement.wires),
        segment=join_segments({wire.mac: wire.segment for wire in agreement.wires}),
        home=agreement.home if stretched else "",
        generation=agreement.generation,
    )


def bound(message: Mapping[str, Any], agreed: Binding) -> Binding:
    """What the destination has bound the VM to. PeerError if it is not what was ``agreed``, but for its own bridge and ports."""
    raw = message.get("binding")
    if not isinstance(raw, dict):
        raise PeerError("the peer's message has no usable 'binding'")
    expected = replace(agreed, generation=agreed.generation + 1)
    for name in ("vm", "host", "generation", "segment", "home", "active"):
        if (type(raw.get(name)), raw.get(name)) != (type(getattr(expected, name)), getattr(expected, name)):
            raise PeerError(f"the peer's binding has another '{name}' than was agreed")
    macs = raw.get("macs")
    if not isinstance(macs, list) or not all(isinstance(one, str) for one in macs):
        raise PeerError("the peer's binding has no list of MAC addresses")
    if tuple(sorted(macs)) != expected.macs:
        raise PeerError("the peer's binding has other MAC addresses than were agreed")
    bridge, port = (_printable(raw, name) for name in ("bridge", "port"))
    return replace(expected, bridge=bridge, port=port)


def _printable(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or len(value) > _LONGEST_NAMES or not value.isprintable():
        raise PeerError(f"the peer's binding has no usable '{name}'")
    return value
