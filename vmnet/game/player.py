"""What one player sends, measures and reports. Pure: the clock is an argument, reports are dictionaries."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from vmnet.game import wire
from vmnet.game.wire import Input, Signal, State, Type

Report = dict[str, Any]
_KEPT = 512
"""Inputs whose sending time is remembered: 25 s of them."""
_OVERTAKEN_TICKS = 100


@dataclass
class _Second:
    """What is reported once a second."""

    since_s: float
    states: int = 0
    rtts_ms: list[float] = field(default_factory=list)
    longest_gap_ms: float = 0.0


class Player:
    """``limit_s``: without a state for longer, the player counts as disconnected. ``id``: 64 bits that nobody can guess.

    ``each``: every round trip is reported, not only what they come to.
    """

    def __init__(self, id_: int, now_s: float, limit_s: float, each: bool = False) -> None:
        self.id, self.limit_s, self.each = id_, limit_s, each
        self.place = (0, 0)
        self._started_s = self._heard_s = now_s
        self._joined = self._out = False
        self._seq = 0
        self._sent_s: dict[int, float] = {}
        self._tick = -1
        self._second = _Second(now_s)
        self._total: dict[str, float] = dict.fromkeys(
            ("sent", "states", "disconnects", "longest_gap_ms", "rtts", "rtt_sum_ms", "rtt_max_ms"), 0
        )

    def input(self, now_s: float) -> bytes:
        """The next one: in circles, so that a picture of it shows what is missing."""
        angle = self._seq / 20
        made = Input(self.id, self._seq, round(8 * math.cos(angle)), round(8 * math.sin(angle)))
        self._sent_s[self._seq] = now_s
        self._sent_s.pop(self._seq - _KEPT, None)
        self._seq += 1
        self._total["sent"] += 1
        return wire.encode_input(made)

    def leave(self) -> bytes:
        return wire.encode_signal(Signal(Type.LEAVE, self.id))

    def received(self, message: bytes, now_s: float) -> list[Report]:
        """Of whatever came; what is not for this player, or is no newer than what it has, changes nothing."""
        found = wire.decode_for_player(message)
        if found is None or found.player != self.id:
            return []
        if isinstance(found, Signal):
            return [{"event": "full"}]
        if found.tick <= self._tick and not self._restarted(found):
            return []
        return self._take(found, now_s)

    def check(self, now_s: float) -> list[Report]:
        """For often: what the passing of time alone makes worth a report."""
        reports: list[Report] = []
        if not self._out and now_s - self._heard_s > self.limit_s:
            self._out = True
            self._total["disconnects"] += 1
            reports.append({"event": "disconnected", "silent_ms": _ms(now_s - self._heard_s)})
        if now_s - self._second.since_s >= 1:
            reports.append(self._of_second())
            self._second = _Second(now_s)
        return reports

    def summary(self, now_s: float) -> Report:
        """Of all the time; a silence that has not ended counts."""
        total = self._total
        mean = total["rtt_sum_ms"] / total["rtts"] if total["rtts"] else None
        return {
            "event": "summary",
            "seconds": round(now_s - self._started_s, 3),
            "joined": self._joined,
            "inputs": int(total["sent"]),
            "states": int(total["states"]),
            "disconnects": int(total["disconnects"]),
            "longest_gap_ms": round(max(total["longest_gap_ms"], _ms(now_s - self._heard_s)), 1),
            "rtt_ms": {
                "mean": None if mean is None else round(mean, 2),
                "max": round(total["rtt_max_ms"], 2) if total["rtts"] else None,
            },
        }

    def _restarted(self, found: State) -> bool:
        """A server that has begun anew counts from one. Packets overtake each other, but not by as much as this."""
        return self._out or self._tick - found.tick > _OVERTAKEN_TICKS

    def _take(self, found: State, now_s: float) -> list[Report]:
        reports: list[Report] = []
        gap_ms = _ms(now_s - self._heard_s)
        if not self._joined:
            self._joined = True
            reports.append({"event": "joined", "slot": found.slot, "after_ms": gap_ms})
        elif self._out:
            reports.append({"event": "reconnected", "silent_ms": gap_ms})
        self._out, self._heard_s, self._tick = False, now_s, found.tick
        self._second.states += 1
        self._total["states"] += 1
        self._second.longest_gap_ms = max(self._second.longest_gap_ms, gap_ms)
        self._total["longest_gap_ms"] = max(self._total["longest_gap_ms"], gap_ms)
        self.place = next(((one.x, one.y) for one in found.places if one.slot == found.slot), self.place)
        self._measure(found, now_s)
        return reports

    def _measure(self, found: State, now_s: float) -> None:
        """Once an input: later states that say the same tell only how long ago it was."""
        sent_s = self._sent_s.pop(found.acked, None)
        if sent_s is None:
            return
        rtt_ms = max(0.0, (now_s - sent_s) * 1e3 - found.hold_us / 1e3)
        self._second.rtts_ms.append(rtt_ms)
        self._total["rtts"] += 1
        self._total["rtt_sum_ms"] += rtt_ms
        self._total["rtt_max_ms"] = max(self._total["rtt_max_ms"], rtt_ms)

    def _of_second(self) -> Report:
        second, rtts = self._second, self._second.rtts_ms
        rtt = {"min": min(rtts), "mean": sum(rtts) / len(rtts), "max": max(rtts)} if rtts else None
        return {
            "event": "second",
            "states": second.states,
            "longest_gap_ms": second.longest_gap_ms,
            "rtt_ms": rtt and {name: round(value, 2) for name, value in rtt.items()},
            "place": list(self.place),
            **({"rtts_ms": [round(one, 2) for one in rtts]} if self.each else {}),
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 1)
