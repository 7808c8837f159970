"""Who may bind a VM: the pure rule behind invariant "exactly one active binding, and its generation only
grows"."""

from __future__ import annotations

from dataclasses import replace

from vmnet.errors import StaleGenerationError
from vmnet.store.records import Binding


def claimed(stored: Binding | None, wanted: Binding, expected: int | None) -> Binding:
    """``wanted`` as it will be stored: active, one generation on.

    ``expected`` is the generation that the caller believes to be stored; None: none at all. Raises
    StaleGenerationError when it is another.
    """
    found = stored.generation if stored else None
    if found != expected:
        raise StaleGenerationError(
            f"VM {wanted.name or wanted.vm} has {_told(found)}, not {_told(expected)}",
            "another migration has come first; look at its binding again",
        )
    return replace(wanted, active=True, generation=(expected or 0) + 1)


def learned(stored: Binding | None, told: Binding) -> Binding:
    """What to store after a peer has told us of a binding. Raises StaleGenerationError when ours is newer or
    differs."""
    if stored is None or told.generation > stored.generation or told == stored:
        return told
    raise StaleGenerationError(
        f"VM {told.name or told.vm} has {_told(stored.generation)} on {stored.host}; "
        f"{told.host}'s {_told(told.generation)} is no news",
        "a peer's information is out of date",
    )


def released(stored: Binding | None, vm: str, generation: int) -> Binding:
    """The stored binding, no longer active. Its generation stays. Raises StaleGenerationError when it is
    another."""
    if stored is None or stored.generation != generation:
        found = stored.generation if stored else None
        raise StaleGenerationError(
            f"VM {vm} has {_told(found)}, not {_told(generation)}", "it has been claimed since"
        )
    return replace(stored, active=False)


def _told(generation: int | None) -> str:
    return "no binding" if generation is None else f"generation {generation}"
