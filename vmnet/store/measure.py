"""How long a journal write takes here: ``python -m vmnet.store.measure [--remote R]... [--count N] [--entries N]``.

Prints the time from call to return of ``journal_plan`` and ``journal_mark``, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from vmnet.store import JournalEntry, Store, StoreSettings

HOST = "vmnet-measure"


async def timed(count: int, call: Callable[[int], Awaitable[None]]) -> list[float]:
    """The durations of ``count`` calls one after another, sorted, in milliseconds."""
    durations = []
    for number in range(count):
        began = time.perf_counter()
        await call(number)
        durations.append((time.perf_counter() - began) * 1000)
    return sorted(durations)


def told(name: str, durations: list[float]) -> str:
    median, late = durations[len(durations) // 2], durations[int(len(durations) * 0.99)]
    return f"{name}: p50 {median:.2f} ms, p99 {late:.2f} ms, longest {durations[-1]:.2f} ms"


async def measure(settings: StoreSettings, count: int, entries: int) -> None:
    async with await Store.open(settings) as store:
        steps = [JournalEntry(n, {"op": "set", "n": n}, {"op": "unset", "n": n}) for n in range(entries)]
        plan = await timed(count, lambda n: store.journal_plan(f"measure-{n}", steps))
        mark = await timed(count, lambda n: store.journal_mark(f"measure-{n}", 0, "done"))
        for number in range(count):
            await store.journal_clear(f"measure-{number}")
        print(told(f"journal_plan of {entries}", plan))
        print(told("journal_mark of 1", mark))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--remote", action="append", default=[], help="measure this store (default: a new one)"
    )
    parser.add_argument(
        "--directory", help="where the new store's file goes (default: a temporary directory)"
    )
    parser.add_argument("--count", type=int, default=1000, help="how many calls")
    parser.add_argument("--entries", type=int, default=10, help="journal entries a call")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        settings = StoreSettings(HOST, Path(directory), Path(directory), tuple(given.remote))
        asyncio.run(measure(settings, given.count, given.entries))


if __name__ == "__main__":
    main()
