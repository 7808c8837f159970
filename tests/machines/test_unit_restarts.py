"""A unit of systemd is restarted on a host during a migration: no silent loss, one VM, and the next migration is clean."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from vmnet.bench.child import PIPES, Child
from vmnet.bench.rows import Case
from vmnet.bench.schemes import SCHEMES
from vmnet.bench.stage import CLIENT, VM, Place, Stage, stage
from vmnet.bench.vm import Bench, Settings, Step, end_stream
from vmnet.lab import Host
from vmnet.lab.wait import wait_for

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(1800)]
SCHEME = SCHEMES["machines-ovs-vmnet"]
RATE_PPS = 100
MARKS_S = 180.0


@dataclass(frozen=True)
class Moved:
    """``code``: of `vmnet migrate`. ``verdict``: None when it printed none. ``lost``: by the meter, both ways."""

    code: int
    verdict: dict[str, Any] | None
    lost: int


@pytest.fixture(scope="module")
def ready(request: pytest.FixtureRequest) -> Iterator[Stage]:
    request.getfixturevalue("debian12_once")
    with stage("restarts", [SCHEME], keep=False) as made:
        yield made


def disturbed(place: Place, source: Host, disturb: list[str], at: Host) -> Moved:
    """A managed migration under the meter; ``disturb`` is run on host ``at`` as soon as pre-copy has begun."""
    destination = place.other(source)
    argv = [sys.executable, "-m", "vmnet.probe", place.address(), "--json", "--duration", "0"]
    meter = Child("the meter", place.lab.node(CLIENT).popen([*argv, "--rate", str(RATE_PPS)], **PIPES))
    with meter:
        meter.expect("start", lambda line: line.get("event") == "started", 60)
        with Child("the migration", source.popen(SCHEME.argv(VM, source, destination), **PIPES)) as move:
            move.expect("pre-copy", lambda line: line.get("state") == "pre-copy", MARKS_S)
            at.run(disturb, timeout=60)
            code = move.finish(source.limits.migrate_s)
        place.settled()
        found = end_stream(meter)
    verdict = next((line["verdict"] for line in reversed(move.lines) if "verdict" in line), None)
    return Moved(code, verdict, int(found["lost"]))


def nothing_is_open(host: Host) -> bool:
    status = json.loads(host.run(["vmnet", "status", "--json"], check=False).stdout or "{}")
    known = status.get("migrations", [{"finished": None}]) + status.get("history", [])
    return all(one["finished"] is not None for one in known)


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("unit", ["vmnet-dom0d", "libvirtd", "virtlogd", "openvswitch-switch"])
def test_a_unit_is_restarted_in_pre_copy(ready: Stage, unit: str, side: str) -> None:
    place = ready.focus(SCHEME.lab)
    source = place.settled()
    at = source if side == "source" else place.other(source)
    moved = disturbed(place, source, ["systemctl", "restart", unit], at)
    print(f"{unit} on the {side}: {moved}")
    assert place.answers(), "the guest is reached, wherever it is now"
    for host in place.lab.hosts:
        wait_for(f"no migration to be open on {host.name}", lambda host=host: nothing_is_open(host), 120, 1)
    if unit != "openvswitch-switch":  # a switch that restarts loses frames by itself
        assert moved.lost == 0 or moved.code != 0, "a silent loss"
    settings = Settings([SCHEME.name], [RATE_PPS], ["idle"], runs=1, controls=0)
    row = Bench(settings, ready).step(Step(Case(SCHEME.name, RATE_PPS, 64, "idle"), 0, False))
    assert (row.error, row.lost, row.reordered) == ("", 0, 0), row
    assert row.verdict is not None and row.verdict["clean"]


def test_units_are_restarted_in_any_order_between_migrations(ready: Stage) -> None:
    """Restarting one stops others that require it, as systemd's units say: all are there again."""
    place = ready.focus(SCHEME.lab)
    for unit in (
        "openvswitch-switch",
        "vmnet-dom0d",
        "libvirtd",
        "virtlogd",
        "libvirtd",
        "openvswitch-switch",
    ):
        for host in place.lab.hosts:
            host.run(["systemctl", "restart", unit], timeout=60)
    for host in place.lab.hosts:
        host.wait_daemon()
        done: subprocess.CompletedProcess[str] = host.run(["vmnet", "doctor"], check=False, timeout=60)
        assert done.returncode == 0, done.stdout
    settings = Settings([SCHEME.name], [RATE_PPS], ["idle"], runs=1, controls=0)
    row = Bench(settings, ready).step(Step(Case(SCHEME.name, RATE_PPS, 64, "idle"), 0, False))
    assert (row.error, row.lost, row.reordered) == ("", 0, 0), row
