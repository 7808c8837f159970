"""What the store keeps, as plain frozen records. Pure: nothing here does I/O.

Times are seconds since the epoch (``time.time()``). Every record turns into a JSON object (``to_json``) and
back (``from_json``), which is also how peers and the control socket send it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

JsonObject = Mapping[str, Any]
Role = Literal["source", "destination"]
Mode = Literal["managed", "hooks"]
JournalState = Literal["planned", "done", "undone"]

ROLES = ("source", "destination")
MODES = ("managed", "hooks")
JOURNAL_STATES = ("planned", "done", "undone")
_LAST_GENERATION = 1 << 53
"""JSON's numbers are exact up to here."""
_LONGEST_TEXT = 16_384


class _Json:
    """``to_json``/``from_json`` for a frozen dataclass; unknown keys are ignored, so an older reader can read
    on."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json.dumps`` takes; tuples become lists there."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, value: JsonObject) -> Self:
        """The record of a ``to_json`` dictionary. Raises TypeError or ValueError when it is none."""
        known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: item for key, item in value.items() if key in known})


@dataclass(frozen=True, slots=True)
class MigrationRecord(_Json):
    """One migration as one host's daemon sees it; each of the two daemons keeps its own.

    ``host`` is the host that owns the record; left empty, the store fills in its own. A record without
    ``finished`` is open: a restarted daemon has to carry it to an end. ``verdict`` is the JSON object shown
    to people at the end.
    """

    id: str
    vm: str
    name: str
    source: str
    destination: str
    role: Role
    mode: Mode = "managed"
    state: str = ""
    generation: int = 0
    started: float | None = None
    finished: float | None = None
    verdict: JsonObject | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    host: str = ""

    def __post_init__(self) -> None:
        _require(bool(self.id), "a migration needs an id")
        _require(self.role in ROLES, f"role {self.role!r} is none of {', '.join(ROLES)}")
        _require(self.mode in MODES, f"mode {self.mode!r} is none of {', '.join(MODES)}")
        _require(self.generation >= 0, "a generation is never negative")

    @property
    def open(self) -> bool:
        return self.finished is None


@dataclass(frozen=True, slots=True)
class JournalEntry(_Json):
    """One planned action and its inverse. ``seq`` orders the entries of one migration on one host.

    ``time`` is when the entry last changed its state (0: the store fills it in). An action without an inverse
    (``None``) changes nothing that has to be put back.
    """

    seq: int
    action: JsonObject
    inverse: JsonObject | None = None
    state: JournalState = "planned"
    time: float = 0.0

    def __post_init__(self) -> None:
        _require(self.seq >= 0, "seq counts from 0")
        _require(self.state in JOURNAL_STATES, f"state {self.state!r} is none of {', '.join(JOURNAL_STATES)}")

    def same_step(self, other: JournalEntry) -> bool:
        """Whether both describe the same step, whatever became of it since."""
        return (self.seq, self.action, self.inverse) == (other.seq, other.action, other.inverse)


@dataclass(frozen=True, slots=True)
class Binding(_Json):
    """Where a VM's traffic goes (VICTOR 2009: VM -> forwarding element, port, MAC). One a VM; its generation
    only grows.

    ``segment`` is the LAN that the bridge belongs to, or one for each of ``macs`` in their order, with commas. ``home``:
    the host that keeps forwarding for a VM that has moved to another segment. A binding that is not ``active`` was
    released; it stays, because its generation must.
    """

    vm: str
    name: str
    host: str
    bridge: str = ""
    port: str = ""
    macs: tuple[str, ...] = ()
    generation: int = 0
    segment: str = ""
    home: str = ""
    active: bool = True

    def __post_init__(self) -> None:
        _require(bool(self.vm), "a binding needs a VM's uuid")
        _require(0 <= self.generation <= _LAST_GENERATION, f"a generation is 0 to {_LAST_GENERATION}")
        texts = (self.vm, self.name, self.host, self.bridge, self.port, self.segment, self.home, *self.macs)
        _require(all(map(_storable, texts)), "a binding's texts are short, and such as the database can keep")
        # A set has no order in OVSDB, so two equal bindings must be equal here too.
        object.__setattr__(self, "macs", tuple(sorted(self.macs)))

    def segment_of(self, mac: str) -> str:
        """The LAN of the interface with that MAC address; of all, where it is not said for each."""
        parts = self.segment.split(",")
        if len(parts) == len(self.macs) and mac in self.macs:
            return parts[self.macs.index(mac)]
        return parts[0]


@dataclass(frozen=True, slots=True)
class HostRecord(_Json):
    """A host that has used this store: ``starts`` counts its daemon's starts, ``last_seen`` is its last sign
    of life."""

    name: str
    starts: int = 0
    last_seen: float = 0.0
    info: Mapping[str, str] = field(default_factory=dict)


def join_segments(by_mac: Mapping[str, str]) -> str:
    """A binding's ``segment``: one if all interfaces are on one LAN, else one an interface, in the order of the MAC addresses."""
    segments = [by_mac[mac] for mac in sorted(by_mac)]
    return ",".join(segments) if len(set(segments)) > 1 else "".join(segments[:1])


def _storable(text: object) -> bool:
    """The database's connection is shared by all: what it cannot encode must not get there."""
    return isinstance(text, str) and len(text) <= _LONGEST_TEXT and "\0" not in text and _encodable(text)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
