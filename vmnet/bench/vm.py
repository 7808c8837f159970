"""``vmnet bench vm``: migrations under measured traffic, scheme against scheme.

Schemes take turns run by run, so that what changes on the machine meanwhile changes for all of them. Hosts take turns, so
that no migration is spent on going back.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from vmnet.bench import rows, switchover, verdicts
from vmnet.bench.child import PIPES, Child
from vmnet.bench.rows import Case, Row
from vmnet.bench.schemes import SCHEMES
from vmnet.bench.stage import CLIENT, VM, Place, Stage
from vmnet.errors import LabError, VmnetError
from vmnet.lab import Host

LEAD_S = 0.5
TAIL_S = 1.0
METER_START_S = 20.0
METER_END_S = 30.0
CONTROL_S = 4.0


@dataclass(frozen=True, slots=True)
class Settings:
    schemes: Sequence[str]
    rates: Sequence[int]
    guests: Sequence[str]
    runs: int = 10
    controls: int = 3
    size_bytes: int = 64
    dirty: str = "32:4000"
    memory_mib: int | None = None
    """Of the VM; None: as the topology says."""
    timelines: Path | None = None


@dataclass(frozen=True, slots=True)
class Step:
    case: Case
    run: int
    control: bool

    @property
    def key(self) -> tuple[Case, int, bool]:
        return self.case, self.run, self.control


def steps(settings: Settings) -> Iterator[Step]:
    """All runs in order: for each guest and rate, runs of all schemes in turn, then their controls in turn.

    Every other turn goes backwards: two schemes that share a lab would else each migrate in one direction only.
    """
    for guest in settings.guests:
        for rate in settings.rates:
            for control, count in ((False, settings.runs), (True, settings.controls)):
                for run in range(count):
                    for scheme in settings.schemes[:: -1 if run % 2 else 1]:
                        yield Step(Case(scheme, rate, settings.size_bytes, guest), run, control)


def remaining(settings: Settings, done: Sequence[Row]) -> list[Step]:
    """Steps that have no good row yet."""
    known = {(row.case, row.run, row.control) for row in done if not row.error}
    return [step for step in steps(settings) if step.key not in known]


class Bench:
    """Runs steps on a stage. ``rows`` grows by one with each."""

    def __init__(self, settings: Settings, stage: Stage, done: Sequence[Row] = ()) -> None:
        self.settings = settings
        self.rows = [row for row in done if not row.error]
        self._stage = stage

    def step(self, step: Step) -> Row:
        """Never raises for a run that failed: that is a row with ``error``."""
        source = ""
        try:
            place = self._stage.focus(SCHEMES[step.case.scheme].lab)
            host = place.settled()
            source = host.name
            row = self._control(step, place, host) if step.control else self._migration(step, place, host)
        except (VmnetError, OSError) as error:
            row = rows.failed(step.case, step.run, step.control, source, str(error))
        self.rows.append(row)
        return row

    def _control(self, step: Step, place: Place, host: Host) -> Row:
        """As long as the median migration run of the same case."""
        lengths = [r.seconds for r in self.rows if r.case == step.case and not r.control and r.seconds]
        with self._meter(step, place) as meter:
            time.sleep(median(lengths) if lengths else CONTROL_S)
            found = end_stream(meter)
        return rows.measured(step.case, step.run, found, source=host.name)

    def _migration(self, step: Step, place: Place, source: Host) -> Row:
        scheme = SCHEMES[step.case.scheme]
        destination = source if scheme.stays else place.other(source)
        place.compare_clocks()
        with self._meter(step, place) as meter:
            time.sleep(LEAD_S)
            since = time.time()
            argv = scheme.argv(VM, source, destination)
            shown = " ".join(
                [Path(argv[0]).name, *argv[1:]]
            )  # rows are for others to read: where it is here says nothing
            with Child(f"'{shown}'", source.popen(argv, **PIPES)) as migrate:
                begin = time.monotonic()
                code = migrate.finish(source.limits.migrate_s)
                total_ms = (time.monotonic() - begin) * 1e3
            if code not in scheme.good_codes:
                raise LabError(f"{migrate.what} ended with code {code}: {migrate.last_noise()}")
            time.sleep(TAIL_S)
            try:
                found = end_stream(meter)
            except VmnetError as error:
                raise LabError(f"{error}; {migrate.what} had ended with code {code}") from error
        over = await_switchover(place, source, destination, since)
        self._timeline(step, place, source, over, since, migrate.lines)
        row = rows.measured(step.case, step.run, found, source=source.name, over=over, total_ms=total_ms)
        verdict = verdicts.said(migrate.lines)
        if verdict is None and scheme.managed and not scheme.stays:
            verdict = verdicts.kept(source, VM, since)
        return replace(row, verdict=verdict, platform=source.platform())

    def _meter(self, step: Step, place: Place) -> Child:
        """The meter in the client, its stream flowing."""
        case = step.case
        argv = [sys.executable, "-m", "vmnet.probe", place.address(), "--json", "--duration", "0"]
        argv += ["--rate", str(case.rate_pps), "--size", str(case.size_bytes)]
        argv += ["--dirty", self.settings.dirty] if case.guest == "dirty" else []
        file = self._events_file(step)
        argv += ["--events", str(file)] if file else []
        meter = Child("the meter", place.lab.node(CLIENT).popen(argv, **PIPES))
        try:
            meter.expect("start of the stream", lambda line: line.get("event") == "started", METER_START_S)
        except BaseException:
            meter.__exit__(None, None, None)
            raise
        return meter

    def _events_file(self, step: Step) -> Path | None:
        """The first run of each case is drawn."""
        if not self.settings.timelines or step.run or step.control:
            return None
        self.settings.timelines.mkdir(parents=True, exist_ok=True)
        case = step.case
        return self.settings.timelines / f"timeline-{case.scheme}-{case.rate_pps}-{case.guest}.jsonl"

    def _timeline(
        self,
        step: Step,
        place: Place,
        source: Host,
        over: switchover.Switchover,
        since: float,
        own: Sequence[dict[str, Any]],
    ) -> None:
        """Adds what the migration did to the file of the meter's packets."""
        file = self._events_file(step)
        if file:
            events = switchover.timeline_events(VM, place.events_of(source), over, since, own)
            with file.open("a") as out:
                out.writelines(json.dumps(event) + "\n" for event in events)


def end_stream(meter: Child) -> dict[str, Any]:
    """Ends the stream; the meter's result."""
    meter.process.send_signal(signal.SIGTERM)
    found = meter.expect("result", lambda line: line.get("event") == "result", METER_END_S)
    meter.finish(METER_END_S)
    return found


def await_switchover(place: Place, source: Host, destination: Host, since: float) -> switchover.Switchover:
    """Raises LabError when QEMU's events do not come."""
    limit_s = source.limits.settle_s
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        there, here = (place.events_of(host) for host in (source, destination))
        found = switchover.find(place.vm, there, here, since)
        if found:
            return found
        time.sleep(0.02)
    raise LabError(
        f"no STOP on {source.name} and RESUME on {destination.name} within {limit_s:g} s of the migration's end"
    )


def run(bench: Bench, todo: Sequence[Step], after: Callable[[Row], None]) -> None:
    for step in todo:
        after(bench.step(step))
