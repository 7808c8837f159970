"""``vmnet bench controller``: how many packet-ins a second a controller answers, and how soon. Over the loopback interface."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vmnet.bench import result_file, rows
from vmnet.bench.child import PIPES, Child
from vmnet.errors import UnavailableError, VmnetError, WaitTimeoutError
from vmnet.report import table

SCHEMES = ("vmnet", "os-ken", "asyncio")
MEASURED = ("per_s", "latency_p50_us", "latency_p99_us")
_LISTENS_S, _SPARE_S = 15.0, 45.0
_SETTLE_S = {"vmnet": 3.0}
"""vmnet changes no table, and so knows no station, before it has looked for links."""


@dataclass(frozen=True, slots=True)
class Case:
    """``window``: questions that each switch has under way."""

    scheme: str
    switches: int
    window: int


@dataclass(frozen=True, slots=True)
class Row:
    scheme: str
    switches: int
    window: int
    run: int
    answers: int | None = None
    seconds: float | None = None
    per_s: float | None = None
    latency_p50_us: float | None = None
    latency_p99_us: float | None = None
    error: str = ""

    @property
    def case(self) -> Case:
        return Case(self.scheme, self.switches, self.window)

    @property
    def control(self) -> bool:
        return self.scheme == "asyncio"


def cases(schemes: Sequence[str], switches: Sequence[int], window: int) -> list[Case]:
    """Latency with one switch and one question at a time; then rates."""
    usable = [one for one in schemes if one != "os-ken" or importlib.util.find_spec("os_ken") is not None]
    return [
        Case(one, count, size)
        for count, size in [(1, 1), *((count, window) for count in switches)]
        for one in usable
    ]


@contextmanager
def controller(scheme: str) -> Iterator[int]:
    """Runs, and listens at the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="vmnet-bench-") as folder:
        argv = [sys.executable, "-m", "vmnet.bench.controllers", scheme, str(port)]
        if scheme == "vmnet":
            settings = Path(folder) / "controller.toml"
            settings.write_text(
                f'listen = ["tcp:127.0.0.1:{port}"]\nplain = true\nkey = "{folder}/lldp.key"\npackets_per_s = 10000000\n'
            )
            argv = [
                sys.executable,
                "-m",
                "controller_bridge.main",
                "--config",
                str(settings),
                "--log-level",
                "error",
            ]
        with Child(f"the controller ({scheme})", subprocess.Popen(argv, **PIPES)) as child:
            _await_listening(child, port)
            yield port


def _await_listening(child: Child, port: int) -> None:
    deadline = time.monotonic() + _LISTENS_S
    while time.monotonic() < deadline:
        if child.process.poll() is not None:
            raise UnavailableError(f"{child.what} ended: {child.last_noise()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise WaitTimeoutError(f"{child.what} did not listen within {_LISTENS_S:g} s")


def measure(case: Case, run: int, seconds: float) -> Row:
    """Never raises for one that failed: that is a row with ``error``."""
    try:
        with controller(case.scheme) as port:
            argv = [
                sys.executable,
                "-m",
                "vmnet.bench.emulated",
                "--port",
                str(port),
                "--seconds",
                str(seconds),
            ]
            argv += ["--switches", str(case.switches), "--window", str(case.window)]
            argv += ["--settle", str(_SETTLE_S.get(case.scheme, 0.5))]
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=seconds + _SPARE_S, check=False
            )
        if done.returncode:
            raise UnavailableError(f"the emulated switches failed: {done.stderr.strip().splitlines()[-1:]}")
        return Row(**asdict(case), run=run, **json.loads(done.stdout))
    except (VmnetError, OSError, subprocess.TimeoutExpired) as error:
        return Row(**asdict(case), run=run, error=str(error))


def document(machine: Mapping[str, Any], found: Sequence[Row]) -> dict[str, Any]:
    return {
        "bench": "controller",
        "machine": machine,
        "rows": [asdict(row) for row in found],
        "summary": [entry for entry, _good in rows.spreads(found, MEASURED)],
    }


def write(file: Path, machine: Mapping[str, Any], found: Sequence[Row]) -> None:
    """Replaces the file in one step."""
    result_file.replace(file, document(machine, found))


def describe(row: Row) -> str:
    name = f"{row.scheme} {row.switches} switches, window {row.window}, run {row.run}"
    if row.error:
        return f"{name}: {row.error}"
    latency = (
        "" if row.latency_p50_us is None else f", {row.latency_p50_us:.0f} us (p99 {row.latency_p99_us:.0f})"
    )
    return f"{name}: {row.per_s:.0f}/s{latency}"


def show(found: Sequence[Row]) -> None:
    lines: list[list[table.Cell]] = []
    for entry, _good in rows.spreads(found, MEASURED):
        spread = entry["per_s"] or {}
        rates = [round(spread[name]) if spread else None for name in ("median", "min", "max")]
        latency = [
            entry[name]["median"] if entry[name] else None for name in ("latency_p50_us", "latency_p99_us")
        ]
        lines.append([entry["scheme"], entry["switches"], entry["window"], entry["runs"], *rates, *latency])
    columns = ("controller", "switches", "window", "runs", "answers/s", "least", "most", "p50 us", "p99 us")
    table.show(columns, lines, "medians")
