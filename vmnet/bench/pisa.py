"""``vmnet bench pisa``: a router VM, or the flows alone, migrate under traffic, scheme against scheme (Pisa 2010, figures 5-7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vmnet.bench import pisa_flow_rows, pisa_rows
from vmnet.bench.pisa_rows import Case, Row, Step
from vmnet.bench.pisa_schemes import SCHEMES, FlowScheme
from vmnet.errors import LabError, VmnetError

NOT_RUN = "not run"


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


def too_fast(step: Step, rows: Sequence[Row]) -> str:
    """What was lost at this rate without a migration; where that is anything, a migration shows nothing. Empty: nothing was."""
    scheme = SCHEMES[step.case.scheme]
    controls = [row for row in rows if row.control and row.case == step.case and not row.error]
    if step.control:
        return ""
    if isinstance(scheme, FlowScheme):
        return pisa_flow_rows.not_carried(controls)
    lost = sum(row.lost or 0 for row in controls)
    return (
        f"without a migration the VM lost {lost} packets at this rate"
        if lost and not scheme.separated
        else ""
    )


class Stand(Protocol):
    """A lab, and how a run is made in it. All raise VmnetError or OSError, but for ``mend``."""

    def ready(self) -> None:
        """Waits until nothing of it has anything to do."""

    def source(self) -> str:
        """Where the next migration begins."""

    def run(self, step: Step, source: str, rows: Sequence[Row]) -> Row:
        """``rows``: those so far."""

    def mend(self) -> None:
        """After a run that failed."""


class Bench:
    """Runs steps in the labs. ``rows`` grows by one with each."""

    def __init__(self, stands: Mapping[str, Stand], done: Sequence[Row] = ()) -> None:
        self.rows = [row for row in done if done_with(row)]
        self._stands = stands

    def step(self, step: Step) -> Row:
        """Never raises for a run that failed: that is a row with ``error``."""
        source = ""
        stand = self._stands[SCHEMES[step.case.scheme].lab]
        try:
            if why := too_fast(step, self.rows):
                raise LabError(f"{NOT_RUN}: {why}")
            # a lab that learns its routes again takes a CPU from the other
            for other in self._stands.values():
                other.ready()
            source = stand.source()
            row = stand.run(step, source, self.rows)
        except (VmnetError, OSError) as error:
            row = pisa_rows.failed(step.case, step.run, step.control, source, str(error))
            if source:
                stand.mend()
        self.rows.append(row)
        return row
