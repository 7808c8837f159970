"""Who forwards a router's data: its VM, until this host has all that it takes, and from then on this host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, ip_address

from dom0.dataplane.gate_program import Mode
from dom0.fib.neighbour import Neighbour
from dom0.router.acquaint import acquaint
from dom0.router.dataplane import DataPlane
from dom0.router.port import Address, RouterPort
from dom0.router.takeover import Side, take_over

_NEXT_TRY_S = 1.0
_MOST_NAMED = 8


class Forwarding:
    """Of ports in mode SLOW. ``addresses_of``: the router's addresses on the interface with a MAC; ``lock``: of the data plane."""

    def __init__(
        self,
        plane: DataPlane,
        most_packets: int,
        addresses_of: Callable[[bytes], list[Address]],
        lock: asyncio.Lock,
        log: logging.Logger,
    ) -> None:
        self._plane, self._most_packets = plane, most_packets
        self._addresses_of, self._lock, self._log = addresses_of, lock, log
        self.synchronised = False
        """All routes are here."""
        self._differences: tuple[str, ...] = ()
        self._overfull = ""
        self.bypassed: tuple[str, ...] = ()
        """What would be reasons, had the operator not allowed it."""
        self.unanswered: tuple[str, ...] = ()
        """Neighbours to which the VM sends and that do not answer this host."""
        self._next_try: asyncio.TimerHandle | None = None
        self._taking_over: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def here(self) -> bool:
        """Data is forwarded here, not by the VM."""
        return all(port.mode is Mode.PASS for port in self._plane.ports.values())

    def set_differences(self, reasons: tuple[str, ...], bypassed: tuple[str, ...]) -> None:
        """What the VM's kernel does otherwise than this host. While there are ``reasons``, the VM forwards."""
        if bypassed and bypassed != self.bypassed:
            self._log.warning(
                "forwarded by this host all the same, as the operator allows: %s", "; ".join(bypassed)
            )
        if reasons and reasons != self._differences:
            self._log.warning("data stays with the VM: %s", "; ".join(reasons))
        self._differences, self.bypassed = reasons, bypassed
        self.settle()

    def set_overfull(self, why: str) -> None:
        """The table here is only a part of the VM's; empty: it is whole."""
        if why and why != self._overfull:
            self._log.warning("data stays with the VM: %s", why)
        self._overfull = why
        self.settle()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the VM has to forward, whatever the operator allows."""
        return (*self._differences, *((f"routes: {self._overfull}",) if self._overfull else ()))

    def settle(self) -> None:
        """Give data back to the VM if there are reasons, take it over if there are none. Ports that are moving are left alone."""
        if self.reasons:
            for port in self._plane.ports.values():
                if port.mode is Mode.PASS:
                    port.mode = Mode.SLOW
        else:
            self.begin_if_ready()

    def begin_if_ready(self) -> None:
        """Not without the router's own addresses: what is for the router itself could not be told from data."""
        if not self._slow() or not self.synchronised or self.reasons or self._taking_over or self._ended:
            return
        if all(one.is_link_local for one in self._plane.addresses.known):
            self._log.warning(
                "has all routes, but no addresses: data stays with the VM until its agent tells them"
            )
            return
        self._taking_over = asyncio.get_running_loop().create_task(self._take_over())

    def _slow(self) -> list[RouterPort]:
        return [port for port in self._plane.ports.values() if port.mode is Mode.SLOW]

    async def _take_over(self) -> None:
        """From the VM, in order. Whatever stands in the way of that, data is forwarded here."""
        async with self._lock:
            slow = self._slow()
            try:
                await self._in_order(slow)
            except OSError as error:
                for port in slow:
                    port.mode = Mode.PASS
                self._log.warning("has all routes: data is forwarded by this host now, at once: %s", error)
        self._taking_over = None
        if self.reasons:  # was told meanwhile
            self.settle()

    async def _in_order(self, slow: list[RouterPort]) -> None:
        strangers = await asyncio.to_thread(acquaint, self._plane.layout.namespace, slow)
        self._set_unanswered(strangers)
        if strangers:
            self._next_try = asyncio.get_running_loop().call_later(_NEXT_TRY_S, self.begin_if_ready)
            return
        sides = [Side(port, self._asked(port)) for port in slow]
        ordered = await asyncio.to_thread(take_over, sides, self._most_packets)
        self._log.info(
            "has all routes: data is forwarded by this host now%s",
            "" if ordered else "; the VM did not say in time that it had sent on what it had",
        )

    def _set_unanswered(self, strangers: Sequence[Neighbour]) -> None:
        """A neighbour may be silent and known to the VM alone: what is for it would be lost here."""
        names = {port.interface.index: port.interface.name for port in self._plane.ports.values()}
        unanswered = tuple(
            f"{ip_address(one.address)} on {names.get(one.index, one.index)} does not answer this host"
            for one in strangers[:_MOST_NAMED]
        )
        if unanswered and unanswered != self.unanswered:
            self._log.warning(
                "data stays with the VM, which sends to %d neighbours that do not answer this host: %s",
                len(strangers),
                "; ".join(unanswered),
            )
        self.unanswered = unanswered

    def _asked(self, port: RouterPort) -> IPv4Address | None:
        """The address for which the VM is asked on this interface."""
        found = self._addresses_of(port.interface.mac)
        return next((one for one in found if isinstance(one, IPv4Address)), None)

    async def end(self) -> None:
        """Nothing is taken over any more; what was begun is done."""
        self._ended = True
        if self._next_try is not None:
            self._next_try.cancel()
        if self._taking_over is not None:
            await self._taking_over
