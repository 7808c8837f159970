"""Has the switches on a new way set up their flows, before it is taken (:mod:`controller_bridge.setup_frame`).

A hello (LLDP) follows the frames over each link. The switch behind the link shows it to us when it has dealt with the frames: both go
to the same thread of ovs-vswitchd, in order, from Linux 5.15 on. Before, they may go to two threads: then it is no proof. Nor is it
for switches farther on that are not changed.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from controller_bridge.controller import Controller
from controller_bridge.core.member import Send
from controller_bridge.topology import Place
from vmnet.errors import WaitTimeoutError

_LIMIT_S: Final = 0.25
"""A VM stands still meanwhile. A busy ovs-vswitchd takes some 100 ms."""
_log = logging.getLogger(__name__)


class WaySetup:
    """A :data:`controller_bridge.controller.SetUp`. ``frames``: of the VM's senders."""

    def __init__(self, controller: Controller, frames: Sequence[bytes]) -> None:
        self._controller, self._frames = controller, frames
        self.known = True
        """False: flows may be missing, and the first packets by a new way be overtaken."""

    async def __call__(self, ways: Mapping[Place, Collection[bytes]]) -> None:
        sends = [
            Send(place, frame) for place, macs in ways.items() for frame in self._frames if frame[:6] in macs
        ]
        if not sends:
            return
        controller, ports = self._controller, list(dict.fromkeys(one.place for one in sends))
        since_s = controller.now_s()
        controller.perform([*sends, *controller.core.hellos(ports, since_s)])
        if not self.known:
            return  # it has taken too long once: the VM waits
        try:
            await controller.until(
                lambda: controller.core.have_heard(ports, since_s), "no hello came by the new way", _LIMIT_S
            )
        except WaitTimeoutError as error:
            self.known = False
            _log.warning("%s: its switches may lack flows", error)
