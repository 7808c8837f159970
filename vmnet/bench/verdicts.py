"""What a migration says of itself: the command at its end, or the source's daemon afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vmnet.bench.host_json import ask
from vmnet.lab.host import Host
from vmnet.lab.wait import wait_for
from vmnet.report.events import flat

_CLOCKS_APART_S = 5.0
"""A host that is a machine has a clock of its own."""


def said(lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What ``vmnet migrate --json`` says of itself at the end."""
    found = [line["verdict"] for line in map(flat, lines) if isinstance(line.get("verdict"), dict)]
    return found[-1] if found else None


def of_status(status: Mapping[str, Any], vm: str, since: float) -> dict[str, Any] | None:
    """Of ``vmnet status --json`` on the source: the verdict of the VM's last migration from there since then (Unix seconds)."""
    past = [
        one
        for one in status.get("history", [])
        if one["name"] == vm and one["role"] == "source" and one["started"] >= since - _CLOCKS_APART_S
    ]
    last = max(past, key=lambda one: float(one["started"]), default=None)
    return last["verdict"] if last is not None and isinstance(last["verdict"], dict) else None


def kept(source: Host, vm: str, since: float) -> dict[str, Any]:
    """As :func:`of_status`, when it is there. LabError if it does not come, or the daemon does not answer."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        verdict = of_status(ask(source, "status"), vm, since)
        found.extend([verdict] if verdict else [])
        return bool(found)

    wait_for(f"the verdict of {vm} on {source.name}", there, source.limits.settle_s)
    return found[0]
