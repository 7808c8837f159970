"""``vmnet bench fib``: a router's table, from FRR into a kernel and on to another host.

Real zebra, bgpd and BIRD in namespaces of their own; each run measures every case once, so that what changes on the machine meanwhile
changes for all of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from vmnet.bench import fib_stage, result_file
from vmnet.bench.child import PIPES, Child
from vmnet.bench.fib_stage import Bird, Frr, Namespace, veth
from vmnet.errors import LabError, VmnetError

CASES = ("count", "kernel", "clone", "sweep", "ip-batch")
MILLION = 1_000_000
_MANAGEMENT, _LOCAL, _PEER = "10.255.0.1", "10.9.0.1", "10.9.0.2"
_RIB_S = 300.0
_CASE_S = 150.0
_READY_S = 20.0


@dataclass(frozen=True, slots=True)
class FibRow:
    """One case of one run. ``longest_turn_ms``: how long the loop was held up at most; ``rss_*``: memory of the receiving process."""

    case: str
    routes: int
    run: int
    seconds: float | None = None
    routes_per_s: float | None = None
    longest_turn_ms: float | None = None
    rss_before_mib: float | None = None
    rss_mib: float | None = None
    error: str = ""


def summarise(rows: Sequence[FibRow]) -> list[dict[str, Any]]:
    """Median, least and most of each case's good rows."""
    found = []
    for case, routes in dict.fromkeys((row.case, row.routes) for row in rows):
        good = [row for row in rows if (row.case, row.routes) == (case, routes) and not row.error]
        measured: dict[str, Any] = {"case": case, "routes": routes, "runs": len(good)}
        for name in ("seconds", "routes_per_s", "longest_turn_ms", "rss_before_mib", "rss_mib"):
            values = [value for row in good if (value := getattr(row, name)) is not None]
            spread = {"median": median(values), "min": min(values), "max": max(values)} if values else None
            measured[name] = spread
        found.append(measured)
    return found


def document(machine: dict[str, Any], rows: Sequence[FibRow]) -> dict[str, Any]:
    return {
        "bench": "fib",
        "machine": machine,
        "rows": [asdict(row) for row in rows],
        "summary": summarise(rows),
    }


def write(file: Path, machine: dict[str, Any], rows: Sequence[FibRow]) -> None:
    """Replaces the file in one step."""
    result_file.replace(file, document(machine, rows))


class Router:
    """FRR that has ``routes`` routes, and the namespace that its FPM speaks to."""

    def __init__(self, folder: Path, routes: int) -> None:
        self.routes = routes
        self.folder = folder
        self.vm, self.fib, self.beyond = Namespace(), Namespace(), Namespace()
        veth(self.vm, "mgmt", 5, self.fib, "mgmt", 105)
        veth(self.vm, "up0", 10, self.beyond, "g0", 20)
        self.vm.ip("addr", "add", "10.255.0.2/24", "dev", "mgmt")
        self.vm.ip("addr", "add", f"{_LOCAL}/24", "dev", "up0")
        self.beyond.ip("addr", "add", f"{_PEER}/24", "dev", "g0")
        self.fib.ip("addr", "add", f"{_MANAGEMENT}/24", "dev", "mgmt")
        self.uplink(self.fib)
        self.frr = Frr(self.vm, folder, f"{_MANAGEMENT} port 2620", bgp=fib_stage.bgpd_config(_LOCAL, _PEER))
        self.bird = Bird(self.beyond, folder, fib_stage.bird_speaker(_PEER, _LOCAL, routes))
        fib_stage.until(self._loaded, _RIB_S, f"table of {routes} routes in FRR")

    def uplink(self, space: Namespace) -> None:
        """The interface that routes lead to, with the router's index."""
        veth(space, "up0", 10, self.beyond, f"g{space.fd}", 1000 + space.fd)
        space.ip("addr", "add", f"{_LOCAL}/24", "dev", "up0")

    def _loaded(self) -> bool:
        time.sleep(0.2)  # asking costs the daemon that is asked
        summary = json.loads(self.frr.vty("show ip route summary json"))
        return any(
            one["type"] == "ebgp" and one.get("fib", 0) >= self.routes for one in summary.get("routes", [])
        )

    def copy(self) -> Namespace:
        space = Namespace()
        self.uplink(space)
        return space

    def discard(self, space: Namespace) -> None:
        space.ip("link", "del", "up0")
        space.close()

    def receiver(self, mode: str, copy: Namespace | None = None) -> Child:
        argv = [sys.executable, "-m", "vmnet.bench.fib_receiver", mode, self.fib.path, _MANAGEMENT, "mgmt"]
        argv += [str(self.routes), *([copy.path] if copy else [])]
        process: Any = self.beyond.popen(argv, **PIPES)
        return Child(f"the receiver ({mode})", process)

    def close(self) -> None:
        self.bird.close()
        self.frr.kill()


@contextmanager
def router(routes: int) -> Iterator[Router]:
    with fib_stage.scratch() as folder:
        found = Router(folder, routes)
        try:
            yield found
        finally:
            found.close()


def measure(place: Router, run: int) -> Iterator[FibRow]:
    """Every case once. Never raises for one that failed: that is a row with ``error``."""
    yield from _guarded(("count",), place, run, _count)
    yield from _guarded(("kernel", "clone", "sweep"), place, run, _kernel)
    yield from _guarded(("ip-batch",), place, run, _batch)


def _guarded(
    cases: tuple[str, ...], place: Router, run: int, function: Callable[[Router, int], Iterator[FibRow]]
) -> Iterator[FibRow]:
    done = []
    try:
        for row in function(place, run):
            done.append(row.case)
            yield row
    except (VmnetError, OSError) as error:
        for case in cases:
            if case not in done:
                yield FibRow(case, place.routes, run, error=str(error))


def _row(place: Router, run: int, line: dict[str, Any]) -> FibRow:
    if "held" in line and line["held"] != (0 if line["event"] == "sweep" else place.routes):
        raise LabError(f"after '{line['event']}' the kernel has {line['held']} of {place.routes} routes")
    known = {name: line[name] for name in ("longest_turn_ms", "rss_before_mib", "rss_mib") if name in line}
    seconds = float(line["seconds"])
    return FibRow(line["event"], place.routes, run, seconds, place.routes / seconds, **known)


def _count(place: Router, run: int) -> Iterator[FibRow]:
    with place.receiver("count") as receiver:
        yield _row(place, run, receiver.expect("count", lambda line: line["event"] == "count", _CASE_S))


def _kernel(place: Router, run: int) -> Iterator[FibRow]:
    copy = place.copy()
    try:
        with place.receiver("kernel", copy) as receiver:
            for event in ("kernel", "clone", "sweep"):
                line = receiver.expect(event, lambda line, event=event: line["event"] == event, _CASE_S)  # type: ignore[misc]
                yield _row(place, run, line)
    finally:
        place.discard(copy)


def _batch(place: Router, run: int) -> Iterator[FibRow]:
    """What iproute2 takes for the same routes, read from a file."""
    lines = [f"route add {one} via {_PEER} dev up0\n" for one in fib_stage.prefixes(place.routes)]
    file = place.folder / "batch"
    file.write_text("".join(lines))
    space = place.copy()
    try:
        began = time.monotonic()
        space.ip("-batch", file)
        seconds = time.monotonic() - began
    finally:
        place.discard(space)
    yield FibRow("ip-batch", place.routes, run, seconds, place.routes / seconds)


def run(
    routes: int, runs: int, million: bool, after: Callable[[FibRow], None], stage: Callable[[str], None]
) -> None:
    """``after`` gets each row, ``stage`` what is under way."""
    plan = [(routes, runs), *([(MILLION, 1)] if million else [])]
    for count, times in plan:
        stage(f"filling FRR with {count} routes")
        with ExitStack() as stack:
            place = stack.enter_context(router(count))
            for number in range(times):
                stage(f"{count} routes, run {number + 1} of {times}")
                for row in measure(place, number):
                    after(row)
