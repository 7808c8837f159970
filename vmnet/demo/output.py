"""The demo's table, its notes, its pictures, and the same for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vmnet.demo.run import RATE_PPS, Played, faults
from vmnet.errors import VmnetError
from vmnet.report import events, table, timeline

PICTURES = {"vmnet": "switchover.png", "libvirt-bridge": "without-vmnet.png"}
_COLUMNS = (
    "migration", "lost", "dupl.", "reord.", "gap ms", "downtime ms", "total ms", "TCP", "stall ms", "pings lost",
)  # fmt: skip


def show(played: Sequence[Played]) -> None:
    table.show(_COLUMNS, [_line(one) for one in played])


def _line(one: Played) -> list[table.Cell]:
    row = one.row
    tcp, ping = one.load.found.get("tcp", {}), one.load.found.get("ping", {})
    return [
        one.title,
        row.lost,
        row.duplicated,
        row.reordered,
        row.longest_gap_ms,
        row.compute_downtime_ms,
        None if row.total_ms is None else round(row.total_ms),
        ("ok" if tcp["ok"] else "differs") if tcp else "broke",
        round(tcp["longest_stall_ms"]) if tcp else None,
        ping.get("lost"),
    ]


def notes(played: Sequence[Played]) -> Iterator[str]:
    """What has to be known to read the table right."""
    for one in played:
        if one.row.guest_resent or one.row.guest_forgot:
            yield (
                f"{one.title}: the guest's memory went back in time (software emulation, docs/bench.md): "
                f"{one.row.guest_resent} packets sent again and {one.row.guest_forgot} forgotten by the guest"
            )
        for name, error in one.load.errors.items():
            yield f"{one.title}: {name}: {error}"


def draw(played: Sequence[Played], folder: Path) -> list[Path]:
    """The pictures that could be drawn. Raises UnavailableError without matplotlib."""
    drawn = []
    for one in played:
        file = folder / f"timeline-{one.act.scheme}-{RATE_PPS}-idle.jsonl"
        if one.act.scheme in PICTURES and not one.row.error and file.exists():
            found = events.load(file)
            packets = next((event for event in found if event["event"] == "timeline"), None)
            drawn.append(folder / PICTURES[one.act.scheme])
            timeline.draw(drawn[-1], found, packets, one.title)
    return drawn


def to_json(played: Sequence[Played], machine: dict[str, Any], pictures: Sequence[Path]) -> dict[str, Any]:
    return {
        "demo": "vm",
        "clean": not faults(played),
        "faults": faults(played),
        "machine": machine,
        "pictures": [str(path) for path in pictures],
        "migrations": [
            {"title": one.title, **one.row.to_json(), **one.load.found, "load_errors": one.load.errors}
            for one in played
        ],
    }


def try_draw(played: Sequence[Played], folder: Path) -> tuple[list[Path], str]:
    """The pictures, or why there are none: a demo without a picture is a demo."""
    try:
        return draw(played, folder), ""
    except VmnetError as error:
        return [], f"no picture: {error}"
