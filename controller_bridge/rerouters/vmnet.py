"""The rerouter ``vmnet``: our own controller is told. What it does about each step: :mod:`controller_bridge.core.moves`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from controller_bridge.api.client import ControllerClient, Way, way
from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.settings import Settings
from vmnet.config.model import Tls, default_host_name
from vmnet.errors import RefusedError, UnavailableError, VmnetError, WaitTimeoutError

_log = logging.getLogger(__name__)


class VmnetRerouter:
    """A :class:`~controller_bridge.rerouters.base.Rerouter`. It connects when it is first used."""

    def __init__(self, way: Way, limit_s: float) -> None:
        self._client, self._limit_s = ControllerClient(way), limit_s

    async def prepare(self, move: Move) -> None:
        """The VM is bound at its source, and its destination may lead it. No entry leads elsewhere than before."""
        # without headers yet: a controller that does not know them says so now, and not when the VM stands still
        await self._step("prepare", move, ())

    async def cut_over(self, move: Move) -> None:
        """All switches that are connected have confirmed; one that is not is told when it is."""
        await self._step("cut_over", move)

    async def set_up_and_cut_over(self, move: Move, headers: Sequence[bytes]) -> bool:
        """By frames that the controller makes, and that no station takes."""
        return (await self._step("cut_over", move, headers)).get("flows_known") is True

    async def finish(self, move: Move) -> None:
        """RefusedError if a switch's entries do not lead to the destination."""
        await self._step("finish", move)

    async def roll_back(self, move: Move) -> None:
        await self._step("roll_back", move)

    async def fence(self, move: Move, token: bytes) -> int:
        """From every switch that led elsewhere before, as far as the controller still knows where."""
        sent = (await self._ask("fence", {**_order(move), "token": token.hex()})).get("sent")
        if type(sent) is not int:
            raise UnavailableError("the controller does not say how many fences it has sent")
        return sent

    async def release(self, macs: Sequence[str]) -> None:
        await self._ask("release", {"macs": list(macs)})

    async def close(self) -> None:
        await self._client.close()

    async def _step(self, op: str, move: Move, headers: Sequence[bytes] | None = None) -> dict[str, Any]:
        named = {} if headers is None else {"headers": [one.hex() for one in headers]}
        done = await self._ask(op, {**_order(move), **named})
        if missing := done.get("missing"):
            _log.warning("%s of %s: these switches are told later: %s", op, move.vm, missing)
        return done

    async def _ask(self, op: str, asked: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._client.ask(op, asked, self._limit_s)
        except (RefusedError, UnavailableError, WaitTimeoutError):
            raise
        except VmnetError as error:
            raise UnavailableError(f"the controller cannot do it: {error.message}", error.hint) from None


def _order(move: Move) -> dict[str, Any]:
    return {
        "id": move.id,
        "source": move.source,
        "destination": move.destination,
        "macs": list(move.macs),
        "addresses": list(move.addresses),
    }


def open_vmnet(settings: Mapping[str, Any]) -> VmnetRerouter:
    """ConfigError if the settings are wrong, or a certificate cannot be used. Nothing is connected to yet."""
    given, usual = Settings(settings), Tls()
    controller = given.text("controller")
    files = Tls(
        Path(given.text("ca", str(usual.ca))),
        Path(given.text("certificate", str(usual.certificate))),
        Path(given.text("key", str(usual.key))),
    )
    name, us = given.text("name", "controller"), given.text("host", default_host_name())
    limit_s = given.seconds("limit_s", 10.0)
    given.done()
    return VmnetRerouter(way(controller, files, name, us), limit_s)
