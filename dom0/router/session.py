"""What a keepalive says of the session it keeps: common to all protocols that are answered for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address


class Why(Enum):
    """Why a keepalive is not repeated."""

    AUTHENTICATED = "authenticated"
    """A sequence number makes every packet good for once."""
    DEMAND = "demand mode"
    """Nothing is sent periodically, so nothing is missed."""
    NOT_UP = "not up"
    """The VM says itself that the session is not up, or gives it up."""
    MALFORMED = "malformed"
    """A receiver would drop it too."""


@dataclass(frozen=True)
class Key:
    """A session as the VM sends on it. ``source`` and ``destination`` are packed addresses; ``instance``: port, VRID or area."""

    protocol: str
    source: bytes
    destination: bytes
    instance: int

    def __str__(self) -> str:
        return f"{self.protocol} {ip_address(self.source)} > {ip_address(self.destination)} #{self.instance}"


@dataclass(frozen=True)
class Keepalive:
    """A keepalive that can be sent again, until the neighbour has waited ``patience`` intervals for it."""

    key: Key
    frame: bytes
    """What is sent again, byte by byte."""
    interval_s: float
    patience: float
    jitter: tuple[float, float] = (1.0, 1.0)
    """Parts of the interval after which the next one is sent, at least and at most."""
    number: int = 0
    """How the neighbour calls this session (BFD: its Your Discriminator)."""
    changing: bool = False
    """The VM is asking for other intervals, and the neighbour may not have agreed yet."""
    at_once: bool = False
    """The first one does not wait for its turn."""


@dataclass(frozen=True)
class Unanswerable:
    """A keepalive of a session that nobody can speak for."""

    key: Key
    why: Why


@dataclass(frozen=True)
class Heard:
    """What the neighbour says of the VM's session ``key``: whether it is up, and the least interval it wants (0: nothing at all)."""

    key: Key
    number: int
    up: bool
    interval_s: float
