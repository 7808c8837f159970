"""Who forwards a router's data: its VM, until this host has all that it takes, and from then on this host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from ipaddress import IPv4Address

from dom0.dataplane.gate_program import Mode
from dom0.router.acquaint import acquaint
from dom0.router.dataplane import DataPlane
from dom0.router.port import Address, RouterPort
from dom0.router.takeover import Side, take_over


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
        self._odd: set[bytes] = set()
        self._taking_over: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def here(self) -> bool:
        """Data is forwarded here, not by the VM."""
        return all(port.mode is Mode.PASS for port in self._plane.ports.values())

    def fits(self, mac: bytes, fits: bool) -> None:
        """Whether an interface of the VM is what it is here. While one is not, the VM forwards."""
        if fits:
            self._odd.discard(mac)
        else:
            self._odd.add(mac)
            self._plane.set_mode(Mode.SLOW)

    def begin_if_ready(self) -> None:
        """Not without the router's own addresses: what is for the router itself could not be told from data."""
        if not self._slow() or not self.synchronised or self._odd or self._taking_over or self._ended:
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
        if self._odd:  # was told meanwhile
            self._plane.set_mode(Mode.SLOW)

    async def _in_order(self, slow: list[RouterPort]) -> None:
        strangers = await asyncio.to_thread(acquaint, self._plane.layout.namespace, slow)
        sides = [Side(port, self._asked(port)) for port in slow]
        ordered = await asyncio.to_thread(take_over, sides, self._most_packets)
        self._log.info(
            "has all routes: data is forwarded by this host now%s%s",
            "" if ordered else "; the VM did not say in time that it had sent on what it had",
            f"; {len(strangers)} neighbours have not answered yet" if strangers else "",
        )

    def _asked(self, port: RouterPort) -> IPv4Address | None:
        """The address for which the VM is asked on this interface."""
        found = self._addresses_of(port.interface.mac)
        return next((one for one in found if isinstance(one, IPv4Address)), None)

    async def end(self) -> None:
        """Nothing is taken over any more; what was begun is done."""
        self._ended = True
        if self._taking_over is not None:
            await self._taking_over
