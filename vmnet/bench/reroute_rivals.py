"""What a user would otherwise have, for the same changes: ``ovs-ofctl --bundle``, and os-ken (if it is installed)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from controller_bridge.openflow.flow import SAME_OWNER
from vmnet.bench.child import PIPES, Child
from vmnet.bench.reroute_stage import COOKIE, PRIORITY, Stage, destination
from vmnet.errors import LabError, UnavailableError

_LIMIT_S = 120.0


def install_by_ofctl(stage: Stage, switch: str, out_port: int, new: bool) -> float:
    """Seconds from the start of the program to its end; the file is there before."""
    with tempfile.NamedTemporaryFile("w", prefix="vmnet-flows-", dir=stage.lab.node(switch).run_dir) as file:
        file.writelines(_lines(len(stage.matches), out_port, new))
        file.flush()
        argv = [
            "ovs-ofctl",
            "--bundle",
            "-O",
            "OpenFlow14",
            "add-flows",
            f"unix:{stage.socket_of(switch)}",
            file.name,
        ]
        began = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        seconds = time.perf_counter() - began
    if done.returncode:
        raise LabError(f"ovs-ofctl failed: {done.stderr.strip().splitlines()[-1:]}")
    return seconds


def _lines(flows: int, out_port: int, new: bool) -> Iterator[str]:
    command = "add" if new else "modify_strict"
    cookie = f"cookie={COOKIE:#x}," if new else f"cookie={COOKIE:#x}/{SAME_OWNER:#x},"
    for number in range(flows):
        yield f"{command} {cookie}priority={PRIORITY},ip,nw_dst={destination(number)},actions=output:{out_port}\n"


def has_osken() -> bool:
    return importlib.util.find_spec("os_ken") is not None


def install_by_osken(stage: Stage, switch: str, out_port: int, new: bool) -> float:
    """Seconds from os-ken's first message to the barrier's reply: its start, and the switch's connecting to it, do not count."""
    if not has_osken():
        raise UnavailableError("os-ken is not installed", "pip install os-ken")
    node = stage.lab.node(switch)
    argv = [sys.executable, "-m", "vmnet.bench.reroute_osken"]
    argv += [str(len(stage.matches)), str(out_port), "add" if new else "modify"]
    with Child("os-ken", node.popen(argv, **PIPES)) as child:
        found = child.expect("the end", lambda line: "seconds" in line, _LIMIT_S)
    return float(found["seconds"])
