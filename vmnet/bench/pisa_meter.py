"""The data of a run of the router bench: numbered packets from one node of a lab to another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

from vmnet.bench.child import PIPES, Child
from vmnet.bench.pisa_rows import Case
from vmnet.lab import Lab

LEAD_S = 0.5
START_S = 20.0


def data(lab: Lab, sender: str, receiver: str, address: str, case: Case) -> Child:
    """From ``sender`` to ``receiver``, which has ``address``, until it is told to end (``vm.end_stream``)."""
    ends = (lab.node(name).netns_path for name in (sender, receiver))
    argv = [sys.executable, "-m", "vmnet.bench.flow"]
    for option, path in zip(("--sender", "--receiver"), ends, strict=True):
        argv += [option, str(path)]
    argv += ["--address", address, "--rate", str(case.rate_pps), "--size", str(case.size_bytes)]
    return Child(f"the meter of the data to {receiver}", subprocess.Popen(argv, **PIPES))


def await_start(meters: Iterable[Child]) -> None:
    """Raises WaitTimeoutError or UnavailableError."""
    for meter in meters:
        meter.expect("start of the stream", lambda line: line.get("event") == "started", START_S)
