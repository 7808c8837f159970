"""A VM's clients, found over real Open vSwitches: by our controller's tables and by plain ones, with the traffic that a tap shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import time
from collections.abc import Awaitable, Callable

import pytest
from dataplane_kit import Host, ip, isolated, until, veth
from ovs_kit import Fabric
from test_controller import Scene, linked

from controller_bridge.connected import Connected
from controller_bridge.fabric import End
from controller_bridge.fabric import Fabric as Map
from controller_bridge.follow import gather
from controller_bridge.follow.look import ask_switches
from controller_bridge.follow.places import Seen
from controller_bridge.topology import Place
from dom0.dataplane.traffic_counter import TrafficCounter
from dom0.traffic import told
from vmnet.errors import UnavailableError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here"),
]
_RATE, _BYTES = 500, 200
_UDP_BYTES = 14 + 20 + 8 + _BYTES


def written(fabric: Fabric, hosts: dict[str, str]) -> Map:
    """As an operator would write it down."""
    links = tuple((End(a, b), End(b, a)) for a, b in fabric.ports if a < b and (b, a) in fabric.ports)
    ends = {name: End(*place.split(":")) for name, place in hosts.items()}
    return Map({name: one.address for name, one in fabric.switches.items()}, links, ends)


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(body())  # type: ignore[arg-type]


async def sends(end: Host, to: str, packets: int) -> None:
    """At about the rate, from a kernel at the edge."""
    with end:
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with out:
        began = time.monotonic()
        for number in range(packets):
            with contextlib.suppress(ConnectionRefusedError):
                out.sendto(bytes(_BYTES), (to, 9))
            await asyncio.sleep(max(0.0, began + number / _RATE - time.monotonic()))


@isolated(120)
def test_who_speaks_how_much_and_where_he_is() -> None:
    """The server is the VM: client speaks to it through the gateways, and a neighbour of its own subnet, a quarter as much."""

    async def body() -> None:
        scene = Scene()
        s4 = scene.fabric.switches["s4"]
        near = Host()
        veth(near, "eth0", s4.host, "near")
        number = s4.add_port("near")
        with near:
            ip("address", "add", "10.2.0.9/24", "dev", "eth0")
        async with scene.controller() as controller:
            await linked(controller)
            await scene.pings("client", "10.2.0.2")
            scene.fabric.ends["near"] = near
            await scene.pings("near", "10.2.0.2")
            await controller.quiet.wait()
            with s4.host:  # what is the tap's other end to the VM: both ways pass it
                counter = TrafficCounter({"server": scene.macs["server"]})
            await asyncio.gather(
                sends(scene.fabric.ends["client"], "10.2.0.2", 800), sends(near, "10.2.0.2", 200)
            )
            scene.ping("client", "10.2.0.2")  # in order behind the last of them
            scene.ping("near", "10.2.0.2")
            measured = gather.traffic(told(counter.read(), 1.0))
            counter.close()
            rates = {one.address: one.bytes_per_s for one in measured.seen}
            assert set(rates) >= {"10.1.0.1", "10.2.0.9"}
            # there and, as ICMP "port unreachable" of limited rate, some back; three pings each way
            for address, packets in (("10.1.0.1", 800), ("10.2.0.9", 200)):
                assert packets * _UDP_BYTES <= rates[address] <= packets * _UDP_BYTES * 1.35 + 10_000
            assert rates["10.1.0.1"] > 2.5 * rates["10.2.0.9"]
            fabric = written(scene.fabric, {"here": "s4:server", "there": "s1:client"})
            known = await ask_switches(fabric, None, "here", measured.seen)
            assert known.clients["10.1.0.1"] == scene.at("client")
            assert known.clients["10.2.0.9"] == Place("s4", number)
            assert known.names["10.2.0.9"] == "s4:near"
            assert known.hosts == {"here": scene.at("server"), "there": scene.at("client")}

    run(body)


@isolated(120)
def test_a_switch_that_is_dead_is_gone_round() -> None:
    async def body() -> None:
        scene = Scene()
        async with scene.controller() as controller:
            await linked(controller)
            await scene.pings("client", "10.2.0.2")
            await controller.quiet.wait()
            fabric = written(scene.fabric, {"here": "s4:server", "there": "s3:4"})
            seen = (Seen("10.1.0.1", scene.macs["client"], 1.0),)
            scene.fabric.switches["s3"].kill()
            await asyncio.to_thread(
                until, lambda: scene.ping("client", "10.2.0.2"), 20, "there is another way"
            )
            known = await ask_switches(fabric, None, "here", seen)
            assert known.clients == {"10.1.0.1": scene.at("client")}
            assert known.hosts == {"here": scene.at("server")}, "the other one's switch does not answer"
            assert dict(known.topology.distances("s4")) == {"s4": 0, "s2": 1, "s1": 2}
            (note,) = known.notes
            assert note.startswith("left out: s3: no switch at unix:")
            with pytest.raises(UnavailableError, match="s3: no switch"):
                await Connected.to(fabric)
            for one in scene.fabric.switches.values():
                one.kill()
            with pytest.raises(UnavailableError, match="no switch at unix:"):
                await ask_switches(fabric, None, "here", seen)

    run(body)


@isolated(60)
def test_tables_that_somebody_else_has_written() -> None:
    async def body() -> None:
        made = Fabric((("s1", "s2"),), {"client": "s1", "server": "s2"})
        port = made.ports
        made.switches["s2"].ofctl(
            "add-flow", f"priority=5,ip,nw_dst=10.1.0.0/24,actions=output:{port['s2', 's1']}"
        )
        made.switches["s1"].ofctl(
            "add-flow",
            f"priority=7,ip,nw_dst=10.1.0.1,actions=mod_dl_dst:02:00:00:00:00:01,output:{port['s1', 'client']}",
        )
        made.switches["s2"].ofctl(
            "add-flow", f"priority=6,dl_dst=02:00:00:00:00:77,actions=output:{port['s2', 'server']}"
        )
        made.switches["s2"].ofctl("add-flow", "priority=0,actions=NORMAL")
        gateway, own = bytes.fromhex("0200000000fe"), bytes.fromhex("020000000077")
        seen = (
            Seen("10.1.0.1", gateway, 3.0),
            Seen("10.2.0.77", own, 2.0),
            Seen("10.9.0.9", gateway, 1.0),
        )
        known = await ask_switches(written(made, {"here": "s2:server"}), None, "here", seen)
        assert known.names == {"10.1.0.1": "s1:client", "10.2.0.77": "s2:server"}
        assert known.unknown == {"10.9.0.9": "no switch's table says where it is"}
        assert known.clients["10.2.0.77"] == known.hosts["here"], "another VM of the same host"

    run(body)
