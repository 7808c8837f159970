"""A VM's last words come to its new host when all that it sent at its old one has left every switch, however long one has kept it."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import suppress

import pytest
from dataplane_kit import isolated
from led_scene import CLIENT, MOVE, VM, Scene, linked, over_the_fabric, until_async

from controller_bridge import last_words
from controller_bridge.last_words import Words

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here"),
]
OWN = [(CLIENT + VM + b"\x88\xb6" + b"own %d" % number).ljust(60, b"\0") for number in range(5)]
LAST = last_words.frame(VM, bytes(16), Words.LAST)


def heard(wire: socket.socket) -> list[bytes]:
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(wire.recv(2000))
    return found


@isolated(120)
@pytest.mark.parametrize("slow", ["s1", "s2"])
def test_a_switch_that_stands_still_is_waited_for(slow: str) -> None:
    """The VM sends by s2 and s1; everybody else hears of its last by s4 and s3, which go on."""

    async def body(scene: Scene) -> None:
        async with scene.controller() as controller:
            rerouter = scene.rerouter()
            await linked(controller)
            await scene.speak(controller)
            await rerouter.prepare(MOVE)
            await rerouter.cut_over(MOVE)
            a, b, client = (scene.wires[name] for name in ("a", "b", "client"))
            heard(b), heard(client)
            tables = scene.dump(cookies=True)
            s2 = scene.fabric.switches["s2"]
            before = s2.sent("s1")
            with scene.fabric.switches[slow].stopped():
                for frame in [*OWN, LAST]:
                    a.send(frame)
                if slow == "s1":  # its packets and a hello wait there
                    await until_async(lambda: s2.sent("s1") > before + len(OWN), "the hello waits at s1")
                assert LAST not in heard(b)
            said: list[bytes] = []
            await until_async(lambda: said.extend(heard(b)) or LAST in said, "the last words come")  # type: ignore[func-returns-value]
            assert [one for one in heard(client) if one in OWN] == OWN
            assert scene.dump(cookies=True) == tables, "nobody has learned anything of them"
            await rerouter.close()

    over_the_fabric(body)
