"""What a running Faucet says of itself (Prometheus text format 0.0.4). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vmnet.errors import PeerError

NAMES: Final = (
    "faucet_config_hash_info",
    "faucet_config_load_error",
    "faucet_config_applied",
    "faucet_config_reload_requests_total",
    "faucet_config_reload_cold_total",
    "dp_status",
    "learned_l2_port",
)
_LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Running:
    """``hashes``: SHA-256 of each file of the configuration that is in force; ``applied``: the part of the datapaths that were told.

    ``cold``: how often a datapath was set up anew; ``up``: those that are connected; ``learned``: (datapath, MAC) -> interface.
    """

    hashes: Mapping[str, str]
    error: str
    failed: bool
    applied: float
    reloads: float
    cold: Mapping[str, float] = field(default_factory=dict)
    up: frozenset[str] = frozenset()
    learned: Mapping[tuple[str, str], int] = field(default_factory=dict)


def running(text: str) -> Running:
    """PeerError if it is no Faucet that speaks."""
    samples: dict[str, list[tuple[dict[str, str], float]]] = {name: [] for name in NAMES}
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found and found[1] in samples:
            samples[found[1]].append((dict(_LABEL.findall(found[2] or "")), _value(found[3])))
    if not samples["faucet_config_hash_info"]:
        raise PeerError(
            "this is no Faucet: it does not say faucet_config_hash_info", "is `metrics` Faucet's own address?"
        )
    info = samples["faucet_config_hash_info"][-1][0]
    files = info.get("config_files", "").split(",")
    return Running(
        dict(zip(files, info.get("hashes", "").split(","), strict=False)),
        info.get("error", ""),
        _single(samples["faucet_config_load_error"]) != 0,
        _single(samples["faucet_config_applied"]),
        _single(samples["faucet_config_reload_requests_total"]),
        {labels["dp_name"]: value for labels, value in samples["faucet_config_reload_cold_total"]},
        frozenset(labels["dp_name"] for labels, value in samples["dp_status"] if value == 1),
        {
            (labels["dp_name"], labels["eth_src"].lower()): int(value)
            for labels, value in samples["learned_l2_port"]
        },
    )


def _value(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PeerError(f"Faucet's metrics: {text!r} is no number") from None


def _single(samples: list[tuple[dict[str, str], float]]) -> float:
    return samples[-1][1] if samples else 0.0
