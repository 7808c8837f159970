"""The interface between a migration and whatever steers the fabric (Pisa 2010, figure 3).

A rerouter is found by its name among the entry points ``vmnet.rerouters``; each names a function that takes the settings from the
configuration (``[rerouter.settings]``, a table of strings and tables) and gives a :class:`Rerouter`; ConfigError if they are wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Final, Protocol, runtime_checkable

from vmnet.errors import ConfigError

GROUP: Final = "vmnet.rerouters"


@dataclass(frozen=True)
class Move:
    """A VM on its way from one host to another. ``id``: the migration's; ``macs`` and ``addresses`` as text, the VM's own."""

    id: str
    vm: str
    source: str
    destination: str
    macs: tuple[str, ...]
    addresses: tuple[str, ...] = ()


class Rerouter(Protocol):
    """Each step may be asked for again, also by a daemon that has been restarted: what is done already is not done twice.

    They fail with RefusedError (the fabric cannot do it; nothing has changed), UnavailableError (the fabric, or a part of it, cannot
    be reached), or WaitTimeoutError. They never leave a path half made that carries packets.
    """

    async def prepare(self, move: Move) -> None:
        """While the VM still runs at its source: the new path is there, and confirmed; no packet takes it yet."""

    async def cut_over(self, move: Move) -> None:
        """The VM stands still: from now on packets for it take the new path. Milliseconds count: only the fabric is waited for."""

    async def finish(self, move: Move) -> None:
        """The VM runs at its destination: the old path goes, once nothing is under way on it."""

    async def roll_back(self, move: Move) -> None:
        """The VM stays at its source: everything is as before ``prepare``. Also after ``cut_over``; not after ``finish``."""

    async def close(self) -> None:
        """Connections go; the fabric stays as it is."""


@runtime_checkable
class Releases(Protocol):
    """A rerouter of a fabric that keeps where a VM is, once it has been told: it is to be told as well when the VM has ended."""

    async def release(self, macs: Sequence[str]) -> None:
        """They are nowhere any more, or where they are next heard. Errors as above."""


@runtime_checkable
class Fences(Protocol):
    """A rerouter of a fabric that can be told to send a frame itself: the old path is known to be empty, and not taken for it."""

    async def fence(self, move: Move, token: bytes) -> int:
        """After ``cut_over``, on every old way to ``move.macs`` of which it is known that it still leads to the source: a
        :func:`~controller_bridge.fence.fence` with ``token``, from the switch where the ways part, behind all that it has sent there.

        How many there are: when this returns they have been sent. None (0) is no error. Errors as above.
        """


@runtime_checkable
class SetsUpFlows(Protocol):
    """A rerouter of a fabric whose switches may lack flows of their datapaths for what comes by a new path: it has them set up."""

    async def set_up_and_cut_over(self, move: Move, headers: Sequence[bytes]) -> bool:
        """As ``cut_over``. ``headers``: of frames that others have sent to ``move.macs``, from the Ethernet header on.

        False: a switch on the new path may lack flows for their like, and the first packets by it may be overtaken.
        """


Opener = Callable[[Mapping[str, Any]], Rerouter]


def open_rerouter(kind: str, settings: Mapping[str, Any]) -> Rerouter:
    """ConfigError if there is none of that name, or its settings are wrong."""
    known = {one.name: one for one in entry_points(group=GROUP)}
    if kind not in known:
        raise ConfigError(
            f"no rerouter {kind!r}", f"give one of {', '.join(sorted(known)) or '(none is installed)'}"
        )
    opener: Opener = known[kind].load()
    return opener(settings)
