"""What ``vmnet follow`` does again and again: look, say what should be, move."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import click

from controller_bridge.follow.decision import Decision, Verdict, decide
from controller_bridge.follow.facts import Limits
from controller_bridge.follow.gather import Gathered
from controller_bridge.follow.look import Away, Scene, look
from controller_bridge.follow.rating import Policy, Rating
from vmnet.cli import common, migration
from vmnet.cli.interrupts import Interrupts
from vmnet.errors import ExitCode, RefusedError, VmnetError
from vmnet.wire import error_to_dict

_FOR_GOOD = (ExitCode.USAGE, ExitCode.CONFIG, ExitCode.ABORTED)
"""Looking again would not help, or the operator has had enough."""


class Follower:
    """``interrupts``: entered."""

    def __init__(
        self,
        scene: Scene,
        policy: Policy,
        limits: Limits,
        dry_run: bool,
        as_json: bool,
        interrupts: Interrupts,
    ) -> None:
        self._scene, self._policy, self._limits = scene, policy, limits
        self._dry_run, self._as_json = dry_run, as_json
        self._interrupts = interrupts
        self._said = ""
        self._not_before_s = -math.inf
        """A move that failed is not tried again at once (monotonic clock)."""

    def once(self) -> int:
        """The exit code. RefusedError if the VM is at another host."""
        found = self._interrupts.run(look(self._scene))
        if isinstance(found, Away):
            raise RefusedError(
                f"VM {self._scene.vm!r} is on {found.host}",
                f"run this on {found.host}, or on every host with --watch",
            )
        return self._act(found)

    def watch(self, every_s: float) -> None:
        """Until interrupted. What goes wrong is said, and looked at again."""
        while True:
            began_s = time.monotonic()
            try:
                found = self._interrupts.run(look(self._scene))
                if isinstance(found, Away):
                    self._away(found)
                else:
                    self._act(found)
            except VmnetError as error:
                if error.code in _FOR_GOOD:
                    raise
                self._failed(error)
            self._interrupts.run(asyncio.sleep(began_s + every_s - time.monotonic()))

    # -- one look -------------------------------------------------------------------------------------------------------

    def _act(self, found: Gathered) -> int:
        decision = decide(
            found.situation, self._policy, self._limits, now_s=found.now_s, moved_s=found.moved_s
        )
        held_s = self._not_before_s - time.monotonic() if decision.verdict is Verdict.MOVE else 0.0
        self._tell(found, decision, held_s)
        if decision.verdict is not Verdict.MOVE or self._dry_run or held_s > 0:
            return int(ExitCode.OK)
        try:
            with self._interrupts.as_usual():
                return migration.run(self._scene.socket, self._scene.vm, decision.host, self._as_json)
        except VmnetError:
            self._not_before_s = time.monotonic() + self._limits.pause_s
            raise

    def _tell(self, found: Gathered, decision: Decision, held_s: float) -> None:
        if self._as_json:
            common.print_json(look_json(found, decision, self._policy, self._dry_run, held_s))
            return
        state = f"{decision.verdict} {decision.best} {held_s > 0}"
        if state != self._said:
            click.echo("\n".join([*decision.why, *found.notes]))
            if held_s > 0:
                click.echo(f"the last try failed: tried again in {held_s:.0f} s")
        self._said = state

    def _away(self, found: Away) -> None:
        if self._as_json:
            common.print_json({"event": "away", "t": time.time(), "vm": self._scene.vm, "host": found.host})
        else:
            self._news(f"{self._scene.vm} is on {found.host}; waiting until it comes here")

    def _failed(self, error: VmnetError) -> None:
        if self._as_json:
            common.print_json(
                {"event": "failed", "t": time.time(), "vm": self._scene.vm, "error": error_to_dict(error)}
            )
        else:
            self._news(f"vmnet: {error}; looking again")

    def _news(self, line: str) -> None:
        """Once, not at each look."""
        if line != self._said:
            click.echo(line, err=True)
        self._said = line


def look_json(
    found: Gathered, decision: Decision, policy: Policy, dry_run: bool, held_s: float = 0.0
) -> dict[str, Any]:
    """One look for machines (docs/follow.md). What is infinite is null. ``held_s``: so long no move is tried. Pure."""
    situation = found.situation
    again_s = held_s if decision.again_s is None else decision.again_s - found.now_s
    return {
        "event": "look",
        "t": found.now_s,
        "vm": situation.vm.name,
        "host": situation.vm.host,
        "policy": policy.value,
        "dry_run": dry_run,
        "verdict": decision.verdict.value,
        "to": decision.host,
        "best": decision.best,
        "gain": _finite(decision.gain),
        "again_s": again_s if again_s > 0 else None,
        "hosts": {name: _rating(one) for name, one in decision.ratings.items()},
        "clients": [
            {"address": address, "bytes_per_s": rate, "place": found.places.get(address)}
            for address, rate in situation.traffic.items()
        ],
        "why": list(decision.why),
        "notes": list(found.notes),
    }


def _rating(one: Rating) -> dict[str, Any]:
    return {
        "cost": _finite(one.cost),
        "against": one.against,
        "cpu_percent": one.with_vm.cpu_percent,
        "memory_percent": one.with_vm.memory_percent,
        "hops": dict(one.hops),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
