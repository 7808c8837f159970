"""``vmnet bench pisa``: a router VM migrates while data flows through it, scheme against scheme (Pisa 2010, figures 5-7)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vmnet.bench import libvirt_job, pisa_rows
from vmnet.bench.child import PIPES, Child
from vmnet.bench.flow_count import FlowResult
from vmnet.bench.libvirt_job import Job
from vmnet.bench.pisa_rows import Case, Moved, Observed, Row
from vmnet.bench.pisa_schemes import SCHEMES
from vmnet.bench.pisa_stage import CLIENT, ROUTER_ADDRESS, SERVER, SERVER_ADDRESS, RouterPlace, mend
from vmnet.bench.vm import await_switchover, end_stream, said_verdict
from vmnet.errors import LabError, VmnetError
from vmnet.lab import Host

LEAD_S = 0.5
TAIL_S = 2.0
START_S = 20.0
MIGRATE_S = 60.0
CONTROL_S = 4.0
NOT_RUN = "not run"
CONTROL_PPS, CONTROL_FRAME_BYTES = 100, 64


@dataclass(frozen=True, slots=True)
class Settings:
    """``fewer``: migrations of each case of schemes that are ``fewer``; ``controls``: runs without a migration."""

    schemes: Sequence[str]
    rates: Sequence[int]
    sizes: Sequence[int]
    runs: int = 5
    fewer: int = 2
    controls: int = 1
    ip_version: int = 4


@dataclass(frozen=True, slots=True)
class Step:
    case: Case
    run: int
    control: bool

    @property
    def key(self) -> tuple[Case, int, bool]:
        return self.case, self.run, self.control


def steps(settings: Settings) -> Iterator[Step]:
    """For each size and rate: the controls of each lab, then runs of all schemes in turn, every other turn backwards."""
    for size in settings.sizes:
        for rate in settings.rates:
            cases = [Case(one, rate, size, settings.ip_version) for one in settings.schemes]
            for run in range(settings.controls):
                yield from (Step(case, run, True) for case in _of_each_lab(cases))
            for run in range(max(settings.runs, settings.fewer)):
                for case in cases[:: -1 if run % 2 else 1]:
                    if run < (settings.fewer if SCHEMES[case.scheme].fewer else settings.runs):
                        yield Step(case, run, False)


def _of_each_lab(cases: Sequence[Case]) -> list[Case]:
    """Without a migration, schemes of one lab are the same: the first of each stands for all."""
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(SCHEMES[case.scheme].lab, case)
    return list(first.values())


def done_with(row: Row) -> bool:
    """Whether it was measured, or need not be."""
    return not row.error or row.error.startswith(NOT_RUN)


def remaining(settings: Settings, done: Sequence[Row]) -> list[Step]:
    """Steps that have no such row yet."""
    known = {(row.case, row.run, row.control) for row in done if done_with(row)}
    return [step for step in steps(settings) if step.key not in known]


def too_fast(step: Step, rows: Sequence[Row]) -> int:
    """How many packets the VM itself lost at this rate without a migration; beyond what it can forward a migration shows nothing."""
    if step.control or SCHEMES[step.case.scheme].separated:
        return 0
    return sum(row.lost or 0 for row in rows if row.control and row.case == step.case and not row.error)


class Bench:
    """Runs steps in the labs. ``rows`` grows by one with each."""

    def __init__(self, places: Mapping[str, RouterPlace], done: Sequence[Row] = ()) -> None:
        self.rows = [row for row in done if done_with(row)]
        self._places = places

    def step(self, step: Step) -> Row:
        """Never raises for a run that failed: that is a row with ``error``."""
        source = ""
        place = self._places[SCHEMES[step.case.scheme].lab]
        try:
            if lost := too_fast(step, self.rows):
                raise LabError(f"{NOT_RUN}: without a migration the VM lost {lost} packets at this rate")
            host = self._quiet(place)
            source = host.name
            row = self._run(step, place, host)
        except (VmnetError, OSError) as error:
            row = pisa_rows.failed(step.case, step.run, step.control, source, str(error))
            if source:
                mend(place)
        self.rows.append(row)
        return row

    def _quiet(self, place: RouterPlace) -> Host:
        """Where the VM runs, once no lab has anything to do: one that learns its routes again takes a CPU from the other."""
        for other in self._places.values():
            other.ready()
        return place.settled()

    def _run(self, step: Step, place: RouterPlace, host: Host) -> Row:
        before = place.looks()
        with _probe(place, step.case) as probe, _flow(place, step.case) as flow:
            for meter in (probe, flow):
                meter.expect("start of the stream", lambda line: line.get("event") == "started", START_S)
            time.sleep(LEAD_S)
            moved = None if step.control else _migrate(step.case, place, host)
            time.sleep(CONTROL_S - LEAD_S if moved is None else TAIL_S)
            # both drain at once
            flow.process.send_signal(signal.SIGTERM)
            control = end_stream(probe)
            data = FlowResult.from_json(end_stream(flow))
        seen = Observed(data, control, before, place.looks())
        return pisa_rows.measured(step.case, step.run, host.name, seen, moved)


def _migrate(case: Case, place: RouterPlace, source: Host) -> Moved:
    scheme = SCHEMES[case.scheme]
    destination = place.other(source)
    since = time.time()
    argv = scheme.argv(place.vm, destination.name, destination.address)
    with Child(f"'{' '.join(argv)}'", source.popen(argv, **PIPES)) as migrate:
        begin = time.monotonic()
        code = migrate.finish(MIGRATE_S)
        total_ms = (time.monotonic() - begin) * 1e3
    if code not in scheme.good_codes:
        raise LabError(f"{migrate.what} ended with code {code}: {migrate.last_noise()}")
    over = await_switchover(place, source, destination, since)
    return Moved(over.downtime_ms, total_ms, _job(place.vm, destination), said_verdict(migrate.lines))


def _job(vm: str, destination: Host) -> Job:
    """The destination has the job's statistics, whatever becomes of the domain on the source."""
    asked = ["virsh", "domjobinfo", vm, "--completed", "--rawstats"]
    return libvirt_job.parse(destination.run(asked, check=False).stdout)


def _probe(place: RouterPlace, case: Case) -> Child:
    """Packets to the router itself and back."""
    argv = [sys.executable, "-m", "vmnet.probe", ROUTER_ADDRESS[case.ip_version], "--json", "--duration", "0"]
    argv += ["--rate", str(CONTROL_PPS), "--size", str(CONTROL_FRAME_BYTES)]
    return Child("the meter of the control plane", place.lab.node(CLIENT).popen(argv, **PIPES))


def _flow(place: RouterPlace, case: Case) -> Child:
    """Packets through the router."""
    sender, receiver = (place.lab.node(name).netns_path for name in (CLIENT, SERVER))
    argv = [sys.executable, "-m", "vmnet.bench.flow", "--sender", str(sender), "--receiver", str(receiver)]
    argv += ["--address", SERVER_ADDRESS[case.ip_version]]
    argv += ["--rate", str(case.rate_pps), "--size", str(case.size_bytes)]
    return Child("the meter of the data plane", subprocess.Popen(argv, **PIPES))
