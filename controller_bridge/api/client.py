"""The end that asks the controller: a daemon that moves a VM, or a person."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any

from controller_bridge import address
from controller_bridge.address import Address
from controller_bridge.api.words import PORT
from vmnet.config.model import Tls, default_host_name
from vmnet.errors import PeerError, UnavailableError
from vmnet.peer import identity
from vmnet.peer.client import Client
from vmnet.peer.link import Link, Other, introduced


@dataclass(frozen=True)
class Way:
    """``name``: in the controller's certificate. ``us``: this host, as the controller is told where there is no TLS."""

    address: Address
    tls: ssl.SSLContext | None
    name: str
    us: str


def way(controller: str, files: Tls | None = None, name: str = "controller", us: str = "") -> Way:
    """``controller``: unix:, tcp: or ssl:, as it is written. ConfigError if it is wrong, or a certificate cannot be used."""
    found = address.parse(controller, PORT)
    tls = identity.client_context(files or Tls()) if found.kind == "ssl" else None
    return Way(found, tls, name, us or default_host_name())


class ControllerClient:
    """Connects when it is first asked, and anew when the connection was lost."""

    def __init__(self, way: Way) -> None:
        self._client = Client(f"the controller at {way.address}", lambda: _dial(way))

    async def ask(self, op: str, payload: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """What the controller raised, UnavailableError if there is none (or it is not the one it should be), WaitTimeoutError."""
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_s
        try:
            try:
                return await self._client.request(op, payload, limit_s)
            except PeerError:
                # it may have been started anew since: all that it can be asked may be asked twice
                return await self._client.request(op, payload, max(0.1, end - loop.time()))
        except PeerError as error:
            raise UnavailableError(error.message, error.hint) from None

    async def close(self) -> None:
        await self._client.close()


async def _dial(way: Way) -> Link:
    there = way.address
    if there.kind == "unix":
        opening = asyncio.open_unix_connection(there.host)
    else:
        opening = asyncio.open_connection(
            there.host, there.port, ssl=way.tls, server_hostname="" if way.tls else None
        )

    def verify(writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        if tls is not None:
            identity.verify_certificate(tls, way.name)

    other = Other(f"the controller at {there}", "", "vmnet-controllerd", verify)
    link, _name = await introduced(other, opening, way.us)
    return link
