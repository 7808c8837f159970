"""``vmnet bench reroute``: flows change from one path to another, told by us, by ovs-ofctl, by os-ken (Pisa 2010, figure 3)."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from controller_bridge import paths
from controller_bridge.reroute import Reroute
from vmnet.bench import result_file
from vmnet.bench.child import PIPES, Child
from vmnet.bench.flow_count import FlowResult
from vmnet.bench.reroute_rivals import has_osken, install_by_ofctl, install_by_osken
from vmnet.bench.reroute_rows import PISA_MS, Case, Row, summarise
from vmnet.bench.reroute_stage import SERVER, FirstPacket, Stage
from vmnet.errors import VmnetError

SCHEMES = ("vmnet", "ovs-ofctl", "os-ken")
CONTROL = "control"
PACKET_BYTES = 64
_START_S, _LEAD_S, _TAIL_S, _END_S = 10.0, 0.5, 1.0, 15.0
_FIRST_S = 5.0


@dataclass(frozen=True)
class Settings:
    schemes: Sequence[str]
    flows: Sequence[int]
    rate_pps: int
    runs: int
    packets_up_to: int
    """Traffic is sent beside no more flows than these: the switches' own work on more would be what is measured."""


@dataclass(frozen=True)
class Step:
    case: Case
    run: int
    control: bool = False


def steps(settings: Settings) -> list[Step]:
    """Taking turns, so that what changes on the machine meanwhile changes for all."""
    schemes = [one for one in settings.schemes if one != "os-ken" or has_osken()]
    found = []
    for flows in settings.flows:
        for run in range(settings.runs):
            found += [Step(Case(scheme, flows, 0), run) for scheme in schemes]
            if flows <= settings.packets_up_to and settings.rate_pps:
                found += [
                    Step(Case("vmnet", flows, settings.rate_pps), run, control) for control in (True, False)
                ]
    return found


class Bench:
    """``rows`` grows by one with each step."""

    def __init__(self, stage: Stage, runner: asyncio.Runner) -> None:
        self.rows: list[Row] = []
        self._stage, self._runner = stage, runner

    def step(self, step: Step) -> Row:
        """Never raises for one that failed: that is a row with ``error``."""
        try:
            if len(self._stage.matches) != step.case.flows:
                self._runner.run(self._stage.fill(step.case.flows))
            row = self._watched(step) if step.case.rate_pps else self._timed(step)
        except (VmnetError, OSError) as error:
            self._stage.matches = []
            row = Row(**asdict(step.case), run=step.run, control=step.control, error=str(error))
        self.rows.append(row)
        return row

    def _timed(self, step: Step) -> Row:
        if step.case.scheme == "vmnet":
            return self._runner.run(self._ours(step))
        return self._theirs(step, install_by_ofctl if step.case.scheme == "ovs-ofctl" else install_by_osken)

    def _plan(self) -> paths.Plan:
        """The entries are known: reading them back first is not part of what is compared."""
        stage = self._stage
        old = stage.path(stage.way)
        entries = {
            hop.switch: [stage.entry(number, hop) for number in range(len(stage.matches))] for hop in old
        }
        return paths.plan(entries, old, stage.path(stage.other_way))

    async def _ours(self, step: Step) -> Row:
        stage, move = self._stage, Reroute(self._stage.switches, self._plan())
        began = time.perf_counter()
        await move.install()
        installed = time.perf_counter()
        await move.cut_over()
        cut = time.perf_counter()
        await move.confirm_prepared()
        await move.confirm_cut()
        confirmed = time.perf_counter()
        await move.finish(drain=False)
        stage.way = stage.other_way
        return _row(step, installed - began, cut - installed, confirmed - began)

    def _theirs(self, step: Step, install: Callable[[Stage, str, int, bool], float]) -> Row:
        stage = self._stage
        new = {hop.switch: hop.out_port for hop in stage.path(stage.other_way)}
        install_s = install(stage, stage.other_way, new[stage.other_way], True)
        cut_s = install(stage, "s1", new["s1"], False)
        self._runner.run(Reroute(stage.switches, self._plan()).finish(drain=False))
        stage.way = stage.other_way
        return _row(step, install_s, cut_s, None)

    def _watched(self, step: Step) -> Row:
        """Under traffic: what is lost of it, and when the first packet takes the new path."""
        with _traffic(self._stage, step.case.rate_pps) as flow:
            time.sleep(_LEAD_S)
            row = Row(**asdict(step.case), run=step.run, control=step.control)
            if not step.control:
                with FirstPacket(self._stage.lab, self._stage.other_way) as seen:
                    row = self._runner.run(self._cut_under_traffic(step, seen))
            time.sleep(_TAIL_S)
            flow.process.send_signal(signal.SIGTERM)
            found = flow.expect("the result", lambda line: line.get("event") == "result", _END_S)
        counted = FlowResult.from_json({name: value for name, value in found.items() if name != "event"})
        return replace(
            row,
            sent=counted.sent,
            lost=counted.lost,
            duplicated=counted.duplicated,
            reordered=counted.reordered,
            longest_gap_ms=counted.longest_gap_ms,
        )

    async def _cut_under_traffic(self, step: Step, seen: FirstPacket) -> Row:
        stage, move = self._stage, Reroute(self._stage.switches, self._plan())
        began = time.perf_counter()
        await move.prepare()
        prepared, cut_ns = time.perf_counter(), time.time_ns()
        await move.cut_over()
        cut = time.perf_counter()
        first_ns = await asyncio.to_thread(seen.after, _FIRST_S)
        await move.confirm_cut()
        await move.finish()
        stage.way = stage.other_way
        row = _row(step, prepared - began, cut - prepared, None)
        return replace(row, first_packet_ms=round((first_ns - cut_ns) / 1e6, 3))


def _row(step: Step, install_s: float, cut_s: float, confirmed_s: float | None) -> Row:
    changes = 2 * step.case.flows
    return Row(
        **asdict(step.case),
        run=step.run,
        install_ms=round(install_s * 1e3, 3),
        cut_ms=round(cut_s * 1e3, 3),
        changes_per_s=round(changes / (install_s + cut_s)),
        confirmed_ms=None if confirmed_s is None else round(confirmed_s * 1e3, 3),
    )


@contextmanager
def _traffic(stage: Stage, rate_pps: int) -> Iterator[Child]:
    sender, receiver = (stage.lab.node(name).netns_path for name in ("client", "server"))
    argv = [sys.executable, "-m", "vmnet.bench.flow", "--sender", str(sender), "--receiver", str(receiver)]
    argv += ["--address", SERVER, "--rate", str(rate_pps), "--size", str(PACKET_BYTES)]
    with Child("the traffic", subprocess.Popen(argv, **PIPES)) as flow:
        flow.expect("start of the stream", lambda line: line.get("event") == "started", _START_S)
        yield flow


def write(file: Path, machine: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Replaces the file in one step."""
    document = {
        "bench": "reroute",
        "machine": machine,
        "pisa_ms": PISA_MS,
        "rows": [row.to_json() for row in rows],
        "summary": summarise(rows),
    }
    result_file.replace(file, document)
