"""One router on one host: its data plane, the FIB in it, and the sessions over which its VM keeps that current."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from ipaddress import ip_interface
from types import MappingProxyType
from typing import Any

from dom0 import bridges
from dom0.bridge_port import BridgePort
from dom0.claim import mac_bytes
from dom0.dataplane import backlog, netdev, netns
from dom0.dataplane.gate_memory import Bounds
from dom0.dataplane.gate_program import Mode, Word
from dom0.fib.agent_state import AgentReport, Interfaces
from dom0.fib.fib import Fib
from dom0.fib.link import VmLink
from dom0.fib.sessions import Sessions
from dom0.fib.settings import FibSettings
from dom0.router import kernel_view, names
from dom0.router.dataplane import DataPlane, Layout, announce_at, release_taps
from dom0.router.differences import NIC_KINDS, differences
from dom0.router.forwarding import Forwarding
from dom0.router.keepalive import KeepaliveBook
from dom0.router.keepalive_port import KeepaliveWatch
from dom0.router.link_states import LinkStates
from dom0.router.namespace import RouterInterface, add_address
from dom0.router.port import Address, RouterPort
from dom0.router.voice import SPEAKS_WITHIN_S, Voice
from vmnet import control_rules
from vmnet.config import Config
from vmnet.domain_xml import DomainInfo, Interface
from vmnet.errors import RefusedError
from vmnet.router import Bypass, RouterSpec

_USUAL_MTU = 1500
_NO_AGENT = f"{Bypass.UNTOLD}: no agent of ours tells what the VM's kernel does beside routing"
_FIRST_INDEX = 2  # 1 is the loopback interface


@dataclass(frozen=True)
class RouterStatus:
    """``data``: what happens to data ("pass": forwarded here, "slow": the VM forwards it, ...).

    ``reasons``: why the VM forwards it, once all routes are in; ``bypassed``: what the VM does to packets and this host does not.
    """

    name: str
    uuid: str
    namespace: str
    data: str
    synchronised: bool
    vm_here: bool
    fib: dict[str, Any]
    ports: dict[str, dict[str, int]]
    reasons: tuple[str, ...] = ()
    bypassed: tuple[str, ...] = ()


def layout(info: DomainInfo, spec: RouterSpec, config: Config) -> Layout:
    """Interfaces in the order of the XML, as a guest numbers them: eth0 is 2. RefusedError if the management interface is none."""
    data, management = {}, None
    for number, one in enumerate(info.interfaces):
        index = _FIRST_INDEX + number
        mtu = one.mtu or _mtu(one)
        interface = RouterInterface(
            index, f"eth{number}", mac_bytes(one.mac), mtu, names.port(info.uuid, index)
        )
        if one.mac == spec.management:
            management = interface
        elif one.bridge:
            data[interface.mac] = interface
    if management is None:
        raise RefusedError(
            f"VM {info.name!r} has no interface with MAC {spec.management}, its management link",
            f"`vmnet router remove {info.name}`, and add it anew",
        )
    return Layout(names.namespace(info.name, info.uuid), data, management, config.router.address)


def _mtu(one: Interface) -> int:
    tap = one.target_dev
    return netdev.get_mtu(tap) if tap is not None and netdev.exists(tap) else _USUAL_MTU


class Router:
    """Make one, :meth:`build` it, then :meth:`connect` its VM's taps when they are there."""

    def __init__(self, config: Config, info: DomainInfo, spec: RouterSpec) -> None:
        self.config, self.info, self.spec = config, info, spec
        self.log = logging.getLogger(f"dom0.router.{info.name}")
        rules = control_rules.parse_all(config.router.control)
        bounds = Bounds(config.hold.max_packets, config.hold.max_bytes)
        self.plane = DataPlane(layout(info, spec, config), rules, bounds)
        self.found = False
        """Its data plane was there already when it was built."""
        self.vm_here = False
        self.watches: dict[bytes, KeepaliveWatch] = {}
        """By MAC: what the VM says to keep its sessions."""
        self._voices: list[Voice] = []
        self._patience_ends: asyncio.TimerHandle | None = None
        self.on_change: Callable[[bytes], None] = lambda messages: None
        self._report: AgentReport | None = None
        """What the VM's agent told last."""
        self._lock = asyncio.Lock()
        self._forwarding = Forwarding(
            self.plane, config.hold.max_packets, self.addresses_of, self._lock, self.log
        )

    async def build(self, mode: Mode, talk: bool, taps: Mapping[str, str] = MappingProxyType({})) -> None:
        """The data plane and its FIB; data is treated by ``mode``. OSError or VmnetError if it cannot be; nothing is left then.

        ``taps``, by MAC: of a VM that has run here with a data plane that is still there, and goes on working meanwhile.
        """
        self.found = netns.exists(self.plane.layout.namespace)
        async with self._lock:
            try:
                if self.found:
                    self.plane.set_addresses(self._held())
                known = {mac_bytes(mac): tap for mac, tap in taps.items()}
                await asyncio.to_thread(self.plane.make, mode, talk, known)
                self._open_fib()
                await self.sessions.start()
                for one in self.info.interfaces:
                    port = self.plane.ports.get(mac_bytes(one.mac))
                    if port is not None and one.bridge is not None:
                        await bridges.add_port(port.name, BridgePort(one.bridge))
            except BaseException:
                # one that forwards already goes on, whatever we fail in
                await asyncio.to_thread(self.plane.close if self.found else self.plane.remove)
                raise

    def _open_fib(self) -> None:
        layout = self.plane.layout
        assert layout.management is not None
        router = self.config.router
        self.fib = Fib(layout.namespace, self.info.name, most_routes=router.max_routes)
        self.fib.besides = layout.management.index
        self.sessions = Sessions(
            self.fib,
            layout.namespace,
            str(ip_interface(router.address).ip),
            layout.management.name,
            FibSettings(
                fpm_port=router.fpm_port,
                agent_port=router.agent_port,
                settle_s=router.settle_s,
                restart_s=router.restart_s,
            ),
            on_change=lambda messages: self.on_change(messages),
            on_link=self._link,
            on_addresses=self._addresses,
            on_synced=self._synced,
            on_report=self._reported,
            on_overfull=self._forwarding.set_overfull,
        )
        if self.spec.addresses:
            self._forwarding.set_differences((), (_NO_AGENT,))
        self._links = LinkStates(layout.namespace, self.sessions.links_changed, self.log)
        for mac, text in self.spec.addresses:
            add_address(layout.namespace, layout.data[mac_bytes(mac)].index, text)
        self._addresses(frozenset())

    def _addresses(self, told: Interfaces) -> None:
        """The router's own: what its agent tells of, and what the namespace has already (of another host, or as configured)."""
        self.plane.set_addresses([*self._held(), *(one.ip for one in told)])
        self._forwarding.begin_if_ready()

    def _held(self) -> list[Address]:
        layout = self.plane.layout
        here = kernel_view.addresses(layout.namespace)
        if layout.management is not None:
            here.pop(layout.management.index, None)
        return [one for found in here.values() for one in found if not one.is_loopback]

    def refresh_addresses(self) -> None:
        """After the namespace got some from another host."""
        self._addresses(frozenset())

    def _link(self, link: VmLink) -> None:
        interface = self.plane.layout.data.get(mac_bytes(link.mac))
        if interface is None or link.gone:
            return
        if link.index != interface.index or link.kind not in NIC_KINDS:
            return  # a VLAN interface has its NIC's MAC
        self._links.want(interface.name, link.up, link.mtu)

    def _reported(self, report: AgentReport) -> None:
        """Whatever the VM does to packets that this host would not do keeps them with the VM, unless the operator allows it."""
        self._report = report
        layout = self.plane.layout
        found = differences(report, layout.data, layout.management)
        self._forwarding.set_differences(
            tuple(str(one) for one in found if one.kind not in self.spec.bypass),
            tuple(str(one) for one in found if one.kind in self.spec.bypass),
        )

    def configure(self, spec: RouterSpec) -> None:
        """As the VM's metadata say now. What the data plane is made of stays as it is."""
        self.spec = spec
        if self._report is not None:
            self._reported(self._report)

    def links_are_back(self) -> None:
        """After a migration that was called off: data is treated as the VM's agent said last."""
        self._forwarding.settle()

    def _synced(self) -> None:
        self._forwarding.synchronised = True
        self._forwarding.begin_if_ready()

    @property
    def forwards(self) -> bool:
        """Data is forwarded here, not by the VM."""
        return self._forwarding.here

    def check_may_move(self) -> None:
        """RefusedError unless data is forwarded here: only then it is forwarded while the VM stands still."""
        if self.forwards:
            return
        if reasons := self._forwarding.reasons or self._forwarding.unanswered:
            raise RefusedError(
                f"router VM {self.info.name!r} forwards itself: {'; '.join(reasons)}",
                f"`vmnet router remove {self.info.name}` lets it migrate as any other VM",
            )
        raise RefusedError(
            f"not all routes of router VM {self.info.name!r} are here yet",
            "try again when `vmnet router list` says 'data: pass'",
        )

    async def connect(self, taps: dict[str, str], talk: bool = False) -> None:
        """The VM's taps, by MAC: control goes there. They leave their bridges, where our ports are in their place.

        ``talk``: the ports were silent until now, and are no longer.
        """
        async with self._lock:
            found = {mac_bytes(mac): tap for mac, tap in taps.items()}
            await asyncio.to_thread(self.plane.connect, found, talk)
            for one in self.info.interfaces:
                if one.bridge is not None and one.mac in taps:
                    await self._take_place(one.mac, taps[one.mac], one.bridge)
                    await self._stand_for(one.mac)
                    await bridges.take_off(taps[one.mac], one.bridge)
            self._unwatch()
            self.watches = {
                mac: KeepaliveWatch(tap, mac) for mac, tap in found.items() if mac in self.plane.ports
            }
            self.vm_here = True

    async def _take_place(self, mac: str, tap: str, bridge: str) -> None:
        """Our port is treated as the tap was: it is in the same VLANs."""
        port = self.plane.ports.get(mac_bytes(mac))
        if port is None or port.hangs_on_tunnel:
            return
        place = await bridges.place_of(tap, bridge)
        if place.settings:
            await bridges.add_port(port.name, place)

    async def _stand_for(self, mac: str) -> None:
        """The bridge looks for the VM at our port before its tap goes. Not at a host that is silent: the VM is reached at the other.

        A bridge disables a port that leaves first, and forgets its addresses then: what is for them is dropped in between
        (``br_stp_disable_port``, net/bridge/br_stp_if.c).
        """
        port = self.plane.ports.get(mac_bytes(mac))
        if port is not None and port.talk:
            await asyncio.to_thread(bridges.pin, port.name, mac, on=False)

    def speak(self, books: Mapping[bytes, KeepaliveBook]) -> None:
        """Neighbours hear the VM's keepalives from here, session by session, until it says something itself."""
        for mac, book in books.items():
            interface = self.plane.layout.data[mac]
            own = partial(self._said, mac)
            self._voices.append(Voice(self.plane.layout.namespace, interface, book, own))

    def _said(self, mac: bytes) -> KeepaliveBook | None:
        watch = self.watches.get(mac)
        return watch.book if watch is not None else None

    def hush_later(self) -> None:
        """The VM runs, and will speak."""
        asyncio.get_running_loop().call_later(SPEAKS_WITHIN_S, self.hush)
        self.patience_ends_later()

    def be_patient(self) -> None:
        """The VM is about to move: it must not take its neighbours for dead only because it is slow to read what they say."""
        self._set_patience(self.config.router.bfd_patience)

    def patience_ends_later(self) -> None:
        """The VM runs, and will read. Again: as soon as was said first."""
        if self._patience_ends is None:
            later = asyncio.get_running_loop().call_later
            self._patience_ends = later(SPEAKS_WITHIN_S, self._set_patience, 0)

    def _set_patience(self, factor: int) -> None:
        if self._patience_ends is not None:
            self._patience_ends.cancel()
            self._patience_ends = None
        for port in self.plane.ports.values():
            port.patience = factor

    def hush(self) -> None:
        """Nobody speaks for the VM any more. Repeatable."""
        for voice in self._voices:
            voice.close()
        self._voices = []

    def _unwatch(self) -> None:
        self.hush()
        for watch in self.watches.values():
            watch.close()
        self.watches = {}

    async def hang_on(self, port: RouterPort, tunnel: str) -> None:
        """The LAN of ``port`` is not here: ``tunnel`` leads there. It leaves the bridge it would have been on."""
        for one in self.info.interfaces:
            if mac_bytes(one.mac) == port.interface.mac and one.bridge is not None:
                await bridges.take_off(port.name, one.bridge)
        await asyncio.to_thread(port.hang_on, tunnel)

    def addresses_of(self, mac: bytes) -> list[Address]:
        """The router's addresses on one interface, for announcements."""
        found = kernel_view.addresses(self.plane.layout.namespace)
        return found[self.plane.layout.data[mac].index]

    async def disconnect(self) -> None:
        self.vm_here = False
        self._unwatch()
        await asyncio.to_thread(self.plane.disconnect)

    async def stop(self) -> None:
        """We end; the kernel goes on forwarding."""
        await self._forwarding.end()
        self._unwatch()
        self._set_patience(0)
        await self._end_sessions()
        self.plane.close()

    async def remove(self, taps: dict[str, str] | None = None) -> None:
        """The data plane goes; the VM forwards again, and ``taps`` (by MAC) are in the bridges, before it does."""
        await self._forwarding.end()
        async with self._lock:
            if taps is not None:
                self.plane.set_mode(Mode.SLOW)
                await self._give_back(taps)
            self._unwatch()
            self._set_patience(0)
            await self._end_sessions()
            await asyncio.to_thread(self.plane.remove)

    async def _end_sessions(self) -> None:
        await self.sessions.close()
        await self._links.end()
        self.fib.close()

    async def _give_back(self, taps: Mapping[str, str]) -> None:
        """What the VM sends goes into its bridges itself from now on, which learn by it where its addresses are."""
        for one in self.info.interfaces:
            if one.bridge is not None and one.mac in taps:
                port = self.plane.ports.get(mac_bytes(one.mac))
                ours = taps[one.mac] if port is None else port.name
                await bridges.add_port(taps[one.mac], await bridges.place_of(ours, one.bridge))
        await asyncio.to_thread(release_taps, list(taps.values()))
        await asyncio.to_thread(backlog.wait_until_passed)  # what came by our ports until now
        self.plane.mute()
        for mac, port in self.plane.ports.items():
            if tap := taps.get(mac.hex(":")):
                await asyncio.to_thread(announce_at, tap, mac, port.interface.mtu, self.addresses_of(mac))

    def status(self) -> RouterStatus:
        """Counts the routes in the kernel: 0.1 s for 100,000."""
        modes = {port.mode.name.lower() for port in self.plane.ports.values()}
        return RouterStatus(
            self.info.name,
            self.info.uuid,
            self.plane.layout.namespace,
            "/".join(sorted(modes)),
            self._forwarding.synchronised,
            self.vm_here,
            {**asdict(self.fib.counts()), "routes": kernel_view.count_routes(self.plane.layout.namespace)},
            {
                port.name: {
                    "data": port.get(Word.PASSED),
                    "control": port.get(Word.CONTROL),
                    "dropped": port.get(Word.BLOCKED) + port.get(Word.OVERFLOW) + port.get(Word.NO_TAP),
                }
                for port in self.plane.ports.values()
            },
            (*self._forwarding.reasons, *self._forwarding.unanswered),
            self._forwarding.bypassed,
        )
