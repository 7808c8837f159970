"""One connection from a router: bytes in, the namespace's table changed. Two kinds: FRR's FPM, and our agent."""

from __future__ import annotations

import base64
import socket
from collections.abc import Mapping
from typing import Any

from dom0.claim import field
from dom0.fib import settle, tcp_repair
from dom0.fib.agent_state import LISTS, MOST_FILTERS, AgentState
from dom0.fib.fib import Fib
from dom0.fib.first_told import FirstTold
from dom0.fib.framing import MOST_BYTES, Deframer
from dom0.fib.message import MalformedError, RefusedMessageError
from dom0.fib.settings import FibSettings
from vmnet.errors import PeerError


class FpmSession:
    """A generation begins with the first message: a connection that brings nothing costs none."""

    name = "FPM"

    def __init__(self, connection: socket.socket, fib: Fib, now: float) -> None:
        self.connection = connection
        self.complete = False
        self.begun = False
        self._fib = fib
        self._deframer = Deframer()
        self._first_told: FirstTold | None = FirstTold()
        """None when the table is whole."""
        self._quiet = settle.connected(now, fib.replaces or fib.generation is not None)

    def feed(self, data: bytes, now: float) -> None:
        """Raises MalformedError."""
        messages = self._deframer.feed(data)
        if not messages:
            return
        if not self.begun:
            self._fib.begin()
            self.begun = True
        about = self._fib.feed(messages)
        if self._first_told is None:
            return
        nothing_copied = not about and not self._fib.holds  # of a bulk of these, good ones may come behind it
        if nothing_copied or self._first_told.add(about):
            self._quiet = settle.heard(self._quiet, now)

    def whole(self, now: float, settings: FibSettings) -> bool:
        """True once: when all that the router has is in."""
        if self.complete:
            return False
        self._quiet = settle.looked(self._quiet, now, tcp_repair.ack_age_s(self.connection), settings)
        self.complete = self.begun and settle.whole(self._quiet, now, settings)
        if self.complete:
            self._first_told = None
        return self.complete

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "fpm",
            "rest": base64.b64encode(self._deframer.rest).decode(),
            "begun": self.begun,
            "complete": self.complete,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """PeerError."""
        self._deframer = Deframer(tcp_repair.data_field(state, "rest", MOST_BYTES + 4))
        self.begun, self.complete = _flag(state, "begun"), _flag(state, "complete")
        if self.complete:
            self._first_told = None


class AgentSession:
    name = "agent"

    def __init__(self, connection: socket.socket, state: AgentState) -> None:
        self.connection = connection
        self.state = state
        self._deframer = Deframer()

    @property
    def complete(self) -> bool:
        return self.state.complete

    def feed(self, data: bytes, now: float) -> None:
        """Raises MalformedError."""
        self.state.feed(self._deframer.feed(data))

    def whole(self, now: float, settings: FibSettings) -> bool:
        """Never by the clock: an agent says so."""
        return False

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "agent",
            "rest": base64.b64encode(self._deframer.rest).decode(),
            **self.state.to_json(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """PeerError."""
        self._deframer = Deframer(tcp_repair.data_field(state, "rest", MOST_BYTES + 4))
        messages = {name: _messages(state, name, most) for name, most in LISTS.items()}
        filters = _texts(state, "filters", MOST_FILTERS)
        complete, routes, beside = (
            _flag(state, name) for name in ("complete", "tells_routes", "tells_beside")
        )
        try:
            self.state.restore(complete, routes, beside, messages, filters)
        except (MalformedError, RefusedMessageError) as error:
            raise PeerError(
                f"what the peer says that the router's agent told is none of it: {error}"
            ) from error


Session = FpmSession | AgentSession


def _flag(state: Mapping[str, Any], name: str) -> bool:
    value = state.get(name)
    if not isinstance(value, bool):
        raise PeerError(f"the peer's message has no usable '{name}'")
    return value


def _messages(state: Mapping[str, Any], name: str, most: int) -> list[bytes]:
    try:
        return [bytes.fromhex(text) for text in _texts(state, name, most)]
    except ValueError:
        raise PeerError(f"the peer's '{name}' are not all messages") from None


def _texts(state: Mapping[str, Any], name: str, most: int) -> list[str]:
    listed = state.get(name)
    if not isinstance(listed, list) or len(listed) > most:
        raise PeerError(f"the peer's '{name}' are no list")
    return [field({name: text}, name, str) for text in listed]
