"""One run of the router bench with a router VM: it migrates while data flows through it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence

from vmnet.bench import libvirt_job, pisa_meter, pisa_rows, verdicts
from vmnet.bench.child import PIPES, Child
from vmnet.bench.flow_count import FlowResult
from vmnet.bench.libvirt_job import Job
from vmnet.bench.pisa_rows import Case, Moved, Observed, Row, Step
from vmnet.bench.pisa_schemes import SCHEMES, RouterScheme
from vmnet.bench.pisa_stage import CLIENT, ROUTER_ADDRESS, SERVER, SERVER_ADDRESS, RouterPlace, mend
from vmnet.bench.vm import await_switchover, end_stream
from vmnet.errors import LabError
from vmnet.lab import Host

TAIL_S = 2.0
CONTROL_S = 4.0
CONTROL_PPS, CONTROL_FRAME_BYTES = 100, 64


class RouterStand:
    """A lab with a router VM."""

    def __init__(self, place: RouterPlace) -> None:
        self._place = place

    def ready(self) -> None:
        self._place.ready()

    def source(self) -> str:
        """The host that the VM runs on."""
        return self._place.settled().name

    def mend(self) -> None:
        mend(self._place)

    def run(self, step: Step, source: str, rows: Sequence[Row]) -> Row:
        place = self._place
        before = place.looks()
        with _probe(place, step.case) as probe, _flow(place, step.case) as flow:
            pisa_meter.await_start((probe, flow))
            time.sleep(pisa_meter.LEAD_S)
            moved = None if step.control else _migrate(step.case, place, place.lab.host(source))
            time.sleep(CONTROL_S - pisa_meter.LEAD_S if moved is None else TAIL_S)
            # both drain at once
            flow.process.send_signal(signal.SIGTERM)
            control = end_stream(probe)
            data = FlowResult.from_json(end_stream(flow))
        seen = Observed(data, control, before, place.looks())
        return pisa_rows.measured(step.case, step.run, source, seen, moved)


def _migrate(case: Case, place: RouterPlace, source: Host) -> Moved:
    scheme = SCHEMES[case.scheme]
    assert isinstance(scheme, RouterScheme)
    destination = place.other(source)
    since = time.time()
    argv = scheme.argv(place.vm, source, destination)
    with Child(f"'{' '.join(argv)}'", source.popen(argv, **PIPES)) as migrate:
        begin = time.monotonic()
        code = migrate.finish(source.limits.migrate_s)
        total_ms = (time.monotonic() - begin) * 1e3
    if code not in scheme.good_codes:
        raise LabError(f"{migrate.what} ended with code {code}: {migrate.last_noise()}")
    over = await_switchover(place, source, destination, since)
    return Moved(over.downtime_ms, total_ms, _job(place.vm, destination), verdicts.said(migrate.lines))


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
    return pisa_meter.data(place.lab, CLIENT, SERVER, SERVER_ADDRESS[case.ip_version], case)
