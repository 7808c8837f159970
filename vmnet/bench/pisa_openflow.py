"""One run of the router bench without a router: flows change their path on the switches (Pisa 2010, figures 3 and 4b).

What is measured is what ``vmnet flows migrate --avoid SWITCH`` does, from its first message to a switch on: the flow from the client
to the server, and the one back, leave the path that they are on for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from controller_bridge import by_hand
from controller_bridge.address import Address
from controller_bridge.connected import Connected
from controller_bridge.fabric import End, Fabric
from controller_bridge.openflow.flow import Change, Command, Flow
from controller_bridge.openflow.match import Match
from vmnet.bench import pisa_flow_rows, pisa_meter
from vmnet.bench.flow_count import FlowResult
from vmnet.bench.pisa_flow_rows import Rerouted
from vmnet.bench.pisa_rows import Row, Step
from vmnet.bench.reroute_stage import management_socket
from vmnet.bench.saturation import preferred
from vmnet.bench.vm import end_stream
from vmnet.errors import LabError, VmnetError
from vmnet.lab import Lab

TOPOLOGY = "pisa-openflow"
CLIENT, SERVER = "client", "server"
ADDRESSES = {4: {CLIENT: "10.3.0.1", SERVER: "10.3.0.2"}, 6: {CLIENT: "fd03::1", SERVER: "fd03::2"}}
CONTROL_S, TAIL_S = 3.0, 0.5
_FLOWS = 2
_EVERYTHING = Change(Command.DELETE, Flow(0, Match(), b"", 0, 0xFF), 0)


class FlowStand:
    """A lab of switches with two paths from ``client`` to ``server``."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._fabric = lab, fabric_of(lab)
        self._first = asyncio.run(self._tables())

    def ready(self) -> None:
        """Flows that a run has left half way are put back."""
        try:
            self.source()
        except LabError:
            self.mend()
            self.source()

    def source(self) -> str:
        """The switch by which both flows go, one of the two that can be gone round. Raises LabError if it is not one."""
        return asyncio.run(self._way())

    def mend(self) -> None:
        """The switches' tables as they were at first. What fails here fails the next run, too, and is said there."""
        with contextlib.suppress(VmnetError):
            asyncio.run(self._put_back())

    def run(self, step: Step, source: str, rows: Sequence[Row]) -> Row:
        """``rows`` have the controls that a migration is compared with."""
        addresses = ADDRESSES[step.case.ip_version]
        with (
            pisa_meter.data(self._lab, CLIENT, SERVER, addresses[SERVER], step.case) as there,
            pisa_meter.data(self._lab, SERVER, CLIENT, addresses[CLIENT], step.case) as back,
        ):
            pisa_meter.await_start((there, back))
            time.sleep(pisa_meter.LEAD_S)
            moved = None if step.control else asyncio.run(self._move(source))
            time.sleep(CONTROL_S - pisa_meter.LEAD_S if moved is None else TAIL_S)
            # both drain at once
            back.process.send_signal(signal.SIGTERM)
            data, returned = (FlowResult.from_json(end_stream(meter)) for meter in (there, back))
        return pisa_flow_rows.measured(step, source, data, returned, moved, rows)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connected]:
        connected = await Connected.to(self._fabric)
        try:
            yield connected
        finally:
            connected.close()

    async def _tables(self) -> dict[str, list[Flow]]:
        async with self._connected() as connected:
            return await _read(connected)

    async def _way(self) -> str:
        async with self._connected() as connected:
            tables = await _read(connected)
            every = [
                walk
                for edge in by_hand.edges(connected)
                for walk in by_hand.walks(tables, connected, edge, Match())
            ]
        inner = {tuple(hop.switch for hop in walk.path[1:-1]) for walk in every if walk.end is not None}
        if len(every) != _FLOWS or len(inner) != 1 or len(way := inner.pop()) != 1:
            raise LabError(f"the flows of lab {self._lab.name} do not all go there and back by one switch")
        return way[0]

    async def _move(self, source: str) -> Rerouted:
        async with self._connected() as connected:
            starts = by_hand.edges(connected)
            tables = await _read(connected)
            moving = by_hand.groups(tables, connected, starts, Match(), (), frozenset({source}))
            # a controller has a processor of its own, which the meters do not take from it
            with preferred():
                times = await by_hand.move(connected, moving)
        flows = sum(group.flows for group in moving)
        if flows != _FLOWS:
            raise LabError(f"{flows} flows left {source}, not {_FLOWS}")
        return Rerouted(flows, times)

    async def _put_back(self) -> None:
        async with self._connected() as connected:
            for name, flows in self._first.items():
                added = (Change(Command.ADD, one) for one in flows)
                await connected.switches[name].commit([_EVERYTHING, *added])


async def _read(connected: Connected) -> dict[str, list[Flow]]:
    return {name: [one.flow for one in some] for name, some in (await connected.tables()).items()}


def fabric_of(lab: Lab) -> Fabric:
    """The lab's switches and the links between them."""
    names = [name for name, node in lab.nodes.items() if node.spec.kind == "switch"]
    switches = {name: Address("unix", str(management_socket(lab, name))) for name in names}
    ends = [[End(one.node, one.port) for one in link.ends] for link in lab.topology.links]
    links = tuple((one, other) for one, other in ends if {one.switch, other.switch} <= switches.keys())
    return Fabric(switches, links)
