"""What runs beside the bench's packet streams during a migration: a TCP transfer to the guest, and pings."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from vmnet.bench.child import PIPES, Child
from vmnet.bench.stage import CLIENT, Place
from vmnet.errors import VmnetError

_LIMIT_S = 120
_START_S = 20.0
_END_S = 40.0
_MODES = {"tcp": ["--mode", "tcp-send", "--kbit", "4000"], "ping": ["--mode", "ping", "--interval", "0.01"]}


@dataclass
class Load:
    """Filled when the ``with`` block ends. ``errors``: what a transfer that broke said, by its name."""

    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


@contextmanager
def beside(place: Place) -> Iterator[Load]:
    """A TCP transfer and pings from the client, for as long as the block takes. Never raises for what breaks among them."""
    load = Load()
    with ExitStack() as stack:
        children = {name: stack.enter_context(_start(place, name)) for name in _MODES}
        for child in children.values():
            child.expect("start", lambda line: line.get("event") == "started", _START_S)
        yield load
        for name, child in children.items():
            try:
                load.found[name] = _end(child)
            except VmnetError as error:
                load.errors[name] = error.message


def _start(place: Place, name: str) -> Child:
    argv = [sys.executable, "-m", "vmnet.probe", place.address(), "--json", "--duration", str(_LIMIT_S)]
    return Child(name, place.lab.node(CLIENT).popen([*argv, *_MODES[name]], **PIPES))


def _end(child: Child) -> dict[str, Any]:
    if child.process.poll() is None:
        child.process.send_signal(signal.SIGTERM)
    found = child.expect("result", lambda line: line.get("event") == "result", _END_S)
    child.finish(_END_S)
    return {name: value for name, value in found.items() if name not in ("event", "mode", "t")}
