"""``vmnet demo follow``: the lab's campus, players of a game, one of whom walks away, and the VM that follows."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vmnet.demo.players import Players, playing
from vmnet.errors import LabError, NotFoundError
from vmnet.lab import Host, Lab, Options, up, ways
from vmnet.lab.down import down
from vmnet.lab.move import move

VM, ADDRESS = "vm1", "10.1.0.10"
CLIENTS = ("c1", "c2", "c3")
WALKER, HOME, AWAY = "c1", "s2:room1", "s5:room3"
CONTROLLER = "controller"
_WARM_S = 5
"""An emulated guest is slow at first."""
_FOLLOW_S = 120.0
_ANY_CPU = ("--cpu-most", "1000")
"""The processors of all of the lab's hosts are this machine's, and the lab itself keeps them busy."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Phase:
    """A time in which nothing moved: seconds since the epoch, and how many links each client was from the VM (None: no way)."""

    name: str
    began_s: float
    ended_s: float
    vm_at: str
    hops: dict[str, int | None]


@dataclass(frozen=True)
class Story:
    """``look``: what `vmnet follow --dry-run` said (docs/follow.md); ``verdict``: of the move; the players' reports.

    ``walked_s``, ``moved_s``: when the client lost its link, and when the VM stopped at its old host, seconds since the epoch.
    """

    phases: list[Phase]
    walked_s: float
    away_ms: float
    moved_s: float
    look: dict[str, Any]
    verdict: dict[str, Any]
    reports: dict[str, list[dict[str, Any]]]
    summaries: dict[str, dict[str, Any]]


def play(name: str, seconds: int, keep: bool, tell: Tell) -> Story:
    """So many ``seconds`` of play before the client walks, before the VM moves, and after. VmnetError if one does not."""
    with _campus(name, keep, tell) as lab, playing(lab, CLIENTS, ADDRESS) as players:
        players.play(_WARM_S)
        tell(f"players at {', '.join(CLIENTS)}: {seconds} s of the game")
        phases = [_phase(lab, players, "home", seconds)]
        walked_s = time.time()
        walked = move(name, WALKER, AWAY)
        tell(
            f"{WALKER} walks from {walked.source} to {walked.target}, without a link for {walked.away_ms:g} ms"
        )
        phases.append(_phase(lab, players, "away", seconds))
        look = _follow(lab, "--dry-run")[0]
        for line in look["why"]:
            tell(f"vmnet follow --dry-run: {line}")
        verdict, moved_s = _moved(_follow(lab))
        tell(
            f"{VM} runs on {verdict['destination']}: {verdict['lost']} lost, {verdict['total_ms']:.0f} ms in all"
        )
        phases.append(_phase(lab, players, "followed", seconds))
        reports = players.reports()
        return Story(phases, walked_s, walked.away_ms, moved_s, look, verdict, reports, players.end())


@contextmanager
def _campus(name: str, keep: bool, tell: Tell) -> Iterator[Lab]:
    lab = up("campus", Options(name), tell)[0]
    at = ways.stations(lab)
    if (at[VM].at, at[WALKER].port) != (lab.vm(VM).host, HOME):
        raise LabError(
            f"in lab '{name}' {VM} or {WALKER} is somewhere else already", f"first: vmnet lab down {name}"
        )
    try:
        yield lab
    finally:
        if keep:
            tell(f"lab '{name}' stays: vmnet lab down {name}")
        else:
            tell("taking everything down")
            down(name)


def _phase(lab: Lab, players: Players, name: str, seconds: int) -> Phase:
    began_s = time.time()
    players.play(seconds)
    ended_s = time.time()
    seen, at = ways.read(lab.node(CONTROLLER)), ways.stations(lab)
    hops = {client: seen.hops(at[client], at[VM]) for client in CLIENTS}
    return Phase(name, began_s, ended_s, at[VM].at, hops)


def _follow(lab: Lab, *options: str) -> list[dict[str, Any]]:
    """What it says on the VM's host, line by line. The error it ends with, if it does."""
    words = ["follow", VM, "--json", *_ANY_CPU, *options]
    done = _host(lab).run([sys.executable, "-m", "vmnet.cli.entry", *words], check=False, timeout=_FOLLOW_S)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if not lines:
        raise LabError(f"vmnet follow: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return lines


def _host(lab: Lab) -> Host:
    found = lab.running_vms()
    if len(found) != 1:
        raise NotFoundError(f"{VM} runs on {len(found)} hosts of lab '{lab.name}'")
    return lab.host(found[0].host)


def _moved(said: list[dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """The verdict, and when the guest stopped to go on at its new host."""
    verdict = said[-1].get("verdict")
    stops = [one["at"] for one in said if one.get("event") == "stop"]
    if not isinstance(verdict, dict) or not stops:
        raise LabError(f"{VM} was not moved: {said[0]['why'][0]}")
    return verdict, stops[-1]
