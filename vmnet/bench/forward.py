"""``vmnet bench forward``: how many packets a second a router forwards, and what one costs, on three paths in turn."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vmnet.bench import forward_kernel, forward_rows, result_file
from vmnet.bench.child import PIPES, Child
from vmnet.bench.forward_rows import Case, Row
from vmnet.bench.forward_vm import RouterVm, router_vm
from vmnet.bench.pisa_stage import SERVER_ADDRESS
from vmnet.errors import UnavailableError, VmnetError
from vmnet.report import table

READY_S, ANSWER_S = 20.0, 30.0
SEARCH_S, SEARCH_TRIES, SEARCH_LEAST_PPS = 1.0, 6, 500


@dataclass(frozen=True, slots=True)
class Settings:
    paths: Sequence[str] = forward_rows.PATHS
    sizes: Sequence[int] = (64, 1500)
    versions: Sequence[int] = (4, 6)
    rounds: int = 5
    seconds: float = 1.0


class Bench:
    """``rows`` grows by one with each step."""

    def __init__(self, settings: Settings, kernel: Child, vm: RouterVm | None) -> None:
        self.rows: list[Row] = []
        self._settings, self._kernel, self._vm = settings, kernel, vm

    def step(self, case: Case, number: int) -> Row:
        """Never raises for a run that failed: that is a row with ``error``."""
        try:
            row = self._through_vm(case, number) if case.path == "vm" else self._through_kernel(case, number)
        except (VmnetError, OSError) as error:
            row = Row(case.path, case.size_bytes, case.ip_version, number, error=str(error))
        self.rows.append(row)
        return row

    def _through_kernel(self, case: Case, number: int) -> Row:
        question = {"path": case.path, "address": SERVER_ADDRESS[case.ip_version], "size": case.size_bytes}
        assert self._kernel.process.stdin is not None
        self._kernel.process.stdin.write(json.dumps({**question, "seconds": self._settings.seconds}) + "\n")
        self._kernel.process.stdin.flush()
        found = self._kernel.expect("result", lambda line: line.get("event") == "result", ANSWER_S)
        row = forward_rows.measured(case, number, found)
        if (case.path == "ours") != (found["counted"] >= found["arrived"]):
            return replace(row, error=f"{found['counted']} of {found['arrived']} packets met our programs")
        return row

    def _through_vm(self, case: Case, number: int) -> Row:
        """The highest rate without loss is looked for in the first round."""
        assert self._vm is not None
        address = SERVER_ADDRESS[case.ip_version]
        with self._vm.awake():
            found = self._vm.blast(address, case.size_bytes, self._settings.seconds)
            row = forward_rows.measured(case, number, found)
            if number:
                return row
            most = int(row.pps or 0) * 2
            return replace(row, lossless_pps=self._search(address, case.size_bytes, most))

    def _search(self, address: str, packet_bytes: int, most_pps: int) -> int | None:
        vm = self._vm
        assert vm is not None
        return forward_rows.highest(
            lambda rate: not vm.loses(address, packet_bytes, rate, SEARCH_S),
            SEARCH_LEAST_PPS,
            most_pps,
            SEARCH_TRIES,
        )


@contextmanager
def stage(settings: Settings, lab_name: str) -> Iterator[Bench]:
    """Raises UnavailableError when the kernel's paths can not be made."""
    with ExitStack() as stack:
        vm = stack.enter_context(router_vm(lab_name)) if "vm" in settings.paths else None
        kernel = stack.enter_context(
            Child("the kernel's paths", subprocess.Popen(forward_kernel.ARGV, **PIPES))
        )
        try:
            kernel.expect("ready", lambda line: line.get("event") == "ready", READY_S)
        except VmnetError as error:
            raise UnavailableError(f"{error}", "it needs root, veth, bridges and tc") from error
        yield Bench(settings, kernel, vm)


def run(bench: Bench, settings: Settings, after: Callable[[Row], None]) -> None:
    for case, number in forward_rows.order(
        settings.sizes, settings.versions, settings.paths, settings.rounds
    ):
        after(bench.step(case, number))


def write(file: Path, machine: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Replaces the file in one step."""
    summary = forward_rows.summarise(rows)
    document = {
        "bench": "forward",
        "machine": machine,
        "required_of_plain": forward_rows.REQUIRED,
        "reached": forward_rows.reached(summary),
        "rows": [row.to_json() for row in rows],
        "summary": summary,
    }
    result_file.replace(file, document)


def describe(row: Row) -> str:
    name = f"{row.path} {row.size_bytes} B IPv{row.ip_version} round {row.round}"
    if row.error:
        return f"{name}: {row.error}"
    cpu = "" if row.cpu_ns is None else f" ({row.cpu_ns} of CPU)"
    lossless = "" if row.lossless_pps is None else f", without loss {row.lossless_pps}/s"
    return f"{name}: {row.pps:.0f} packets/s, {row.cost_ns} ns a packet{cpu}{lossless}"


def show(rows: Sequence[Row]) -> None:
    rates = ("packets/s", "least", "most", "of plain")
    costs = ("ns a packet", "ns of CPU", "of plain", "without loss/s")
    heads = ("path", "bytes", "IP", "rounds", *rates, *costs)
    table.show(heads, [_line(entry) for entry in forward_rows.summarise(rows)], "medians")


def _line(entry: Mapping[str, Any]) -> list[table.Cell]:
    pps = entry["pps"] or {}
    return [
        *(entry[name] for name in ("path", "size_bytes", "ip_version", "rounds")),
        *(pps.get(name) for name in ("median", "min", "max")),
        _part(entry["of_plain"]),
        *(_median(entry[name]) for name in ("cost_ns", "cpu_ns")),
        _part(entry["cpu_of_plain"]),
        _median(entry["lossless_pps"]),
    ]


def _median(found: Mapping[str, float] | None) -> float | None:
    return found["median"] if found else None


def _part(found: Mapping[str, float] | None) -> str | None:
    return f"{found['median']:.2f}" if found else None
