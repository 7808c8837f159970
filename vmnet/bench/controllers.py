"""Controllers that the bench compares, each a program of its own: ``python -m vmnet.bench.controllers os-ken|asyncio PORT``.

They answer a packet-in with a packet-out, and that is all: no table, no station, no check. vmnet's does all of its work.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from controller_bridge.openflow import action, packet
from controller_bridge.openflow.wire import V13, Framer, Type, message


class Bare(asyncio.Protocol):
    """The least that asyncio has to do, with our encoding."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._framer = transport, Framer()
        transport.write(message(V13, Type.HELLO, 1) + message(V13, Type.FEATURES_REQUEST, 2))

    def data_received(self, data: bytes) -> None:
        out = []
        for one in self._framer.feed(data):
            if one.type == Type.PACKET_IN:
                found = packet.packet_in(one)
                out.append(packet.packet_out(V13, 0, [action.output(found.in_port)], found.data))
            elif one.type == Type.ECHO_REQUEST:
                out.append(message(V13, Type.ECHO_REPLY, one.xid, one.body))
        if out:
            self._transport.write(b"".join(out))


async def _bare(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port)
    await server.serve_forever()


def osken(port: int) -> None:
    from os_ken.lib import hub

    hub.patch()
    from os_ken import cfg
    from os_ken.base.app_manager import AppManager

    cfg.CONF(args=["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", str(port)], project="os_ken")
    manager = AppManager.get_instance()
    manager.load_apps(["vmnet.bench.controller_osken"])
    hub.joinall(manager.instantiate_apps(**manager.create_contexts()))


if __name__ == "__main__":
    kind, at = sys.argv[1], int(sys.argv[2])
    if kind == "asyncio":
        asyncio.run(_bare(at))
    else:
        osken(at)
