"""Where the controller is asked, and who asks: hosts by their certificates, root by its socket."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
import struct
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from controller_bridge.address import Address
from controller_bridge.api.desk import Desk
from vmnet.errors import PeerError, RefusedError, UnavailableError
from vmnet.peer import PeerServer, identity
from vmnet.peer.places import Places
from vmnet.peer.server import listening

NAME: Final = "vmnet-controllerd"
_MOST_CONNECTIONS: Final = 1024
_EACH_HOST: Final = 64
_BACKLOG: Final = 64


class Door:
    """``hosts``: that may come in. ``tls``: for ``ssl:``."""

    def __init__(self, desk: Desk, hosts: Collection[str], tls: ssl.SSLContext | None = None) -> None:
        self._desk, self._hosts, self._tls = desk, hosts, tls
        self._servers: list[PeerServer] = []
        self._paths: list[Path] = []

    async def open(self, listen: Iterable[Address]) -> None:
        """UnavailableError if an address cannot be listened at."""
        for one in listen:
            try:
                sock = self._unix(Path(one.host)) if one.kind == "unix" else listening(one.host, one.port)
            except OSError as error:
                await self.close()
                raise UnavailableError(f"cannot listen at {one}: {error.strerror or error}") from None
            each = _MOST_CONNECTIONS if one.kind == "unix" else _EACH_HOST
            server = PeerServer(Places((), each, _MOST_CONNECTIONS))
            self._servers.append(server)
            if one.kind == "unix":
                server.serve(sock, NAME, None, _root, self._as_root)
            else:
                assert one.kind == "tcp" or self._tls is not None
                tls = self._tls if one.kind == "ssl" else None
                server.serve(
                    sock, NAME, tls, self._by_certificate if tls else self._by_word, self._desk.answer
                )

    def end(self, barred: identity.Barred) -> None:
        """Close the connections of hosts whose certificates count no more."""
        for one in self._servers:
            one.end(barred)

    async def close(self) -> None:
        for one in self._servers:
            await one.stop()
        for path in self._paths:
            with suppress(OSError):
                path.unlink()

    def _unix(self, path: Path) -> socket.socket:
        """Mode 600 from its first moment. What a dead controller has left there goes; OSError if a living one listens."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.stat().st_mode) and not _listens(path):
                path.unlink()
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        before = os.umask(0o177)
        try:
            sock.bind(str(path))
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        finally:
            os.umask(before)
        self._paths.append(path)
        return sock

    async def _as_root(self, _claimed: str, op: str, payload: dict[str, Any]) -> dict[str, Any]:
        return await self._desk.answer(None, op, payload)

    def _by_certificate(self, writer: asyncio.StreamWriter, _claimed: str) -> str:
        names = identity.host_names(writer.get_extra_info("ssl_object"))
        known = [one for one in names if one in self._hosts]
        if len(known) != 1:
            raise PeerError(
                f"a certificate of {', '.join(names) or 'nobody'}, who is no host of this fabric",
                "add it to [hosts] of the controller's settings",
            )
        return known[0]

    def _by_word(self, _writer: asyncio.StreamWriter, claimed: str) -> str:
        if claimed not in self._hosts:
            raise PeerError(
                f"'{claimed}' is no host of this fabric", "add it to [hosts] of the controller's settings"
            )
        return claimed


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(path)) == 0


def _root(writer: asyncio.StreamWriter, _claimed: str) -> str:
    """The kernel says who is at the other end (SO_PEERCRED, unix(7))."""
    found = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _pid, user, _group = struct.unpack("3i", found)
    if user not in (0, os.geteuid()):
        raise RefusedError(f"user {user} may not ask the controller", "be root")
    return "root"
