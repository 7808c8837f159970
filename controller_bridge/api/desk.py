"""What is done about a request to the controller."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from controller_bridge.api import report, words
from controller_bridge.controller import Controller
from controller_bridge.core.core import Core
from controller_bridge.core.hosts import Address
from controller_bridge.core.marks import numbers
from controller_bridge.core.member import Send
from controller_bridge.core.moves import Bound, Moves, Order
from controller_bridge.fence import fence
from controller_bridge.setup_frame import setup_frames
from controller_bridge.topology import Place
from controller_bridge.way_setup import WaySetup
from vmnet.errors import NotFoundError, RefusedError, UnavailableError, VmnetError

SETTLE_S: Final = 10.0
"""So long a request waits until the fabric is known, after the controller or a switch has been started."""
_COUNT_S: Final = 2.0
_log = logging.getLogger(__name__)
Decide = Callable[[str | None, Order], Bound]


class Desk:
    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._core: Core = controller.core
        places = self._core.places
        self._moves = Moves(self._core.hosts, places.of_host, numbers(places.hosts), self._reserved)

    async def answer(self, caller: str | None, op: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """``caller``: a host; None is root here. RefusedError, UnavailableError, NotFoundError or WaitTimeoutError."""
        if op in words.STEPS:
            return await self._step(caller, op, words.order(payload))
        if op == "release":
            return await self._release(caller, words.released(payload))
        if op == "forget":
            return await self._forget(caller, words.released(payload))
        if op == "fence":
            return await self._fence(caller, *words.fenced(payload))
        if op == "status":
            return await self._status(words.after(payload))
        can = ", ".join([*words.STEPS, "release", "forget", "fence", "status"])
        raise NotFoundError("the controller cannot do that", f"it can {can}")

    async def _step(self, caller: str | None, op: str, order: Order) -> dict[str, Any]:
        await self._known()
        steps: Mapping[str, tuple[Decide, str]] = {
            "prepare": (self._moves.prepare, order.source),
            "cut_over": (self._moves.cut_over, order.destination),
            "finish": (self._moves.finish, order.destination),
            "roll_back": (self._moves.roll_back, order.source),
        }
        decide, host = steps[op]
        for end in {"prepare": (order.source, order.destination), "cut_over": (order.destination,)}.get(
            op, ()
        ):
            self._can_receive(end)
        bound = decide(caller, order)
        if bound.changed:
            _log.info(
                "%s of %s by %s: %s at %s",
                *(op, order.id, caller or "root", ", ".join(mac.hex(":") for mac in order.macs), host),
            )
        return await self._led(order, op, bound)

    async def _led(self, order: Order, op: str, bound: Bound) -> dict[str, Any]:
        await self._reached(bound.place)
        macs = [mac for mac in order.macs if mac in self._core.hosts.stations]
        setup = WaySetup(self._controller, setup_frames(order.headers))
        missing = await self._controller.lead(macs, setup)
        if missing:
            _log.warning("%s of %s: %s not told; what is there follows", op, order.id, ", ".join(missing))
        if bound.left_out:
            _log.warning("%s: %s left out", order.id, ", ".join(sorted(map(str, bound.left_out))))
        if bound.place.switch in missing:
            raise UnavailableError(
                f"switch {bound.place.switch}, where it is now, is not connected",
                "its entries follow when it is",
            )
        if op == "finish" and (astray := self._core.astray(macs)):
            raise RefusedError(
                f"{', '.join(astray)} does not lead to {order.destination} yet",
                "look at the controller's log",
            )
        return {
            "missing": missing,
            "left_out": sorted(map(str, bound.left_out)),
            "flows_known": setup.known,
        }

    def _can_receive(self, host: str) -> None:
        """UnavailableError if its switch, or its port, is down: nothing has changed then."""
        place = self._core.places.of_host(host)
        if place is None and host not in self._core.places.hosts:
            return  # whoever decides says so
        if place is None:
            raise UnavailableError(
                f"the port of host {host!r} is not there: its switch is not connected, or has none of that name"
            )
        member = self._core.members.get(place.switch)
        if member is None:
            raise UnavailableError(f"switch {place.switch}, where {host} is, is not connected")
        if place.port not in member.live():
            raise UnavailableError(f"port {place.port} of {place.switch}, where {host} is, is down")

    async def _known(self) -> None:
        """WaitTimeoutError if no switch has been connected for long enough that links and stations are known."""
        await self._controller.until(
            lambda: self._core.adopted, "no switch's table and links were known", SETTLE_S
        )

    async def _reached(self, place: Place) -> None:
        """Until every switch has a way there; or until it is known that some have none."""
        core, controller = self._core, self._controller
        await controller.until(
            lambda: core.reached(place) or controller.now_s() >= core.settled_at_s,
            "the fabric's links were not known",
            SETTLE_S,
        )

    async def _release(self, caller: str | None, macs: tuple[bytes, ...]) -> dict[str, Any]:
        await self._known()
        found = self._moves.release(caller, macs)
        missing = await self._controller.lead(found)
        return {"released": [mac.hex(":") for mac in found], "missing": missing}

    async def _forget(self, caller: str | None, macs: tuple[bytes, ...]) -> dict[str, Any]:
        await self._known()
        found = self._moves.forget(caller, macs)
        self._core.dirty = self._core.dirty or bool(found)
        await self._controller.lead(found)  # which has the tables done anew
        return {"forgotten": [mac.hex(":") for mac in found]}

    async def _fence(self, caller: str | None, order: Order, token: bytes) -> dict[str, Any]:
        """Without waiting for links or tables: a switch or way that is not known has none."""
        self._moves.fence(caller, order)
        fences = [Send(out, fence(mac, token)) for mac in order.macs for out in self._core.old_ways(mac)]
        return {"sent": await self._controller.send(fences)}

    async def _status(self, after: bytes) -> dict[str, Any]:
        switches = dict(self._controller.switches)
        active = await asyncio.gather(*(self._active(name) for name in switches))
        return report.status(
            self._core, self._controller.known, dict(zip(switches, active, strict=True)), after
        )

    async def _active(self, name: str) -> int | None:
        try:
            return await self._controller.switches[name].active(limit_s=_COUNT_S)
        except (VmnetError, KeyError):
            return None

    def _reserved(self, one: Address) -> bool:
        return one in self._core.gateways or one.is_multicast or one.is_unspecified or one.is_loopback
