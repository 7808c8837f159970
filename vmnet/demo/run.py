"""The three migrations of the demo, each a run of the bench with more traffic beside it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmnet.bench import progress
from vmnet.bench.rows import Case, Row
from vmnet.bench.schemes import SCHEMES
from vmnet.bench.stage import Place, Stage, stage
from vmnet.bench.vm import Bench, Settings, Step
from vmnet.demo.load import Load, beside

RATE_PPS = 1000
SIZE_BYTES = 64
_CAPABILITIES_S = 60.0
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Act:
    """``title`` with the hosts filled in. ``exact``: promises no duplicates and no reordering either."""

    scheme: str
    title: str
    exact: bool = False

    @property
    def managed(self) -> bool:
        return SCHEMES[self.scheme].managed


ACTS = (
    Act("vmnet", "vmnet migrate vm1, {} -> {}", exact=True),
    Act("vmnet-virsh", "virsh migrate --live, {} -> {}, with vmnet"),
    Act("libvirt-bridge", "virsh migrate --live, {} -> {}, vmnet off"),
)


@dataclass(frozen=True, slots=True)
class Played:
    act: Act
    title: str
    row: Row
    load: Load


def play(name: str, folder: Path, tell: Tell) -> Iterator[Played]:
    """First the lab with hooks and daemons, then the same one without either; at most one is up at a time."""
    settings = Settings([act.scheme for act in ACTS], [RATE_PPS], ["idle"], timelines=folder)
    for managed in (True, False):
        acts = [act for act in ACTS if act.managed is managed]
        tell(f"two hosts, a switch, a client and a VM {'with' if managed else 'without'} vmnet: booting")
        with stage(name, [SCHEMES[act.scheme] for act in acts], keep=False) as ready:
            _look_at_qemu(ready.focus(SCHEMES[acts[0].scheme].lab))
            yield from _acts(acts, Bench(settings, ready), ready, tell)
            tell("taking everything down")


def _look_at_qemu(place: Place) -> None:
    """libvirt examines its QEMU, for seconds, when it is first asked for its capabilities; that is not a migration's time."""
    asked = [host.popen(["virsh", "capabilities"], stdout=subprocess.DEVNULL) for host in place.lab.hosts]
    for process in asked:
        with process:
            process.wait(_CAPABILITIES_S)


def _acts(acts: Sequence[Act], bench: Bench, ready: Stage, tell: Tell) -> Iterator[Played]:
    for act in acts:
        place = ready.focus(SCHEMES[act.scheme].lab)
        source = place.settled()
        title = act.title.format(source.name, place.other(source).name)
        tell(f"{title}: under {2 * RATE_PPS} packets/s, a TCP transfer and 100 pings/s")
        with beside(place) as load:
            row = bench.step(Step(Case(act.scheme, RATE_PPS, SIZE_BYTES, "idle"), 0, control=False))
        tell(progress.describe(row))
        yield Played(act, title, row, load)


def faults(played: Sequence[Played]) -> list[str]:
    """What the migrations with vmnet promised and did not keep, in words."""
    return [f"{one.title}: {what}" for one in played if one.act.managed for what in _faults(one)]


def _faults(one: Played) -> Iterator[str]:
    row = one.row
    if row.error:
        yield row.error
        return
    if row.lost:
        yield f"{row.lost_out} lost on the way to the guest, {row.lost_back} on the way back"
    if one.act.exact and row.duplicated:
        yield f"{row.duplicated} duplicated"
    if one.act.exact and row.reordered:
        yield f"{row.reordered} reordered"
