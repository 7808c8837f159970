"""Client of the daemon's unix socket (docs/architecture.md, Control socket); synchronous, cheap to import."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from vmnet.errors import UnavailableError, WaitTimeoutError
from vmnet.wire import decode_object, error_from_dict

if TYPE_CHECKING:
    from pathlib import Path

MAX_LINE = 16 * 1024 * 1024
CONNECT_S = 5.0


class ControlClient:
    """Talks to ``vmnet-dom0d``: one connection a request.

    ``silence_s`` is the longest time, in seconds, that the daemon may stay silent within one request.
    """

    def __init__(self, path: Path | str, silence_s: float = 600.0) -> None:
        self._path = str(path)
        self._silence_s = silence_s

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """Run one op and return its result; events on the way are dropped.

        Raises UnavailableError (no daemon), WaitTimeoutError, or whatever VmnetError the daemon answered.
        """
        result: dict[str, Any] = next(line for line in self.stream(op, **fields) if "result" in line)[
            "result"
        ]
        return result

    def stream(self, op: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """Yield ``{"event": ...}`` as they happen, then one ``{"result": {...}}``; raises as ``request``."""
        with self._connect() as sock:
            with suppress(ConnectionError):  # it may have answered before it hung up: read that
                sock.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
            yield from self.answers(sock, op)

    def answers(self, sock: socket.socket, op: str) -> Iterator[dict[str, Any]]:
        """What :meth:`stream` yields, of an ``op`` that has been sent on ``sock``, which is closed afterwards."""
        sock.settimeout(self._silence_s)
        with sock, sock.makefile("rb") as lines:
            while True:
                answer = self._line(lines, op)
                yield answer
                if "result" in answer:
                    return

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_S)
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            raise self._away(error) from None
        return sock

    def _away(self, error: OSError) -> UnavailableError:
        if isinstance(error, PermissionError):
            return UnavailableError(f"may not use {self._path}", "run this as root (sudo)")
        if isinstance(error, TimeoutError):
            return UnavailableError(f"the daemon on {self._path} does not take calls", "look at its log")
        return UnavailableError(
            f"no daemon answers on {self._path}", "start it: systemctl start vmnet-dom0d (or run vmnet-dom0d)"
        )

    def _line(self, lines: BinaryIO, op: str) -> dict[str, Any]:
        try:
            data = lines.readline(MAX_LINE)
        except TimeoutError:
            raise WaitTimeoutError(
                f"the daemon said nothing about '{op}' for {self._silence_s:g} s", "look at its log"
            ) from None
        except ConnectionError:
            data = b""
        if not data.endswith(b"\n"):
            raise UnavailableError(f"the daemon went away before it answered '{op}'", "look at its log")
        try:
            answer = decode_object(data)
        except ValueError as error:
            raise UnavailableError(
                f"{self._path} does not speak our language: {error}", "update both ends"
            ) from None
        if "error" in answer:
            raise error_from_dict(answer["error"])
        if not isinstance(answer.get("result", {}), dict) or not answer.keys() & {"event", "result"}:
            raise UnavailableError(f"{self._path} answered neither event nor result", "update both ends")
        return answer
