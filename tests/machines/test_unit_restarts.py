"""A unit of systemd is restarted on a host during a migration: no silent loss, one VM, and the next migration is clean."""

import json

import pytest
from disturbed import moved

from vmnet.bench.schemes import SCHEMES
from vmnet.bench.stage import Place, Stage
from vmnet.lab import Host
from vmnet.lab.wait import wait_for

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(1800)]
SCHEME = SCHEMES["machines-ovs-vmnet"]
NOT_CLEAN = 8
"""The VM has moved, and the verdict does not promise that nothing was lost or overtaken."""


def moves_cleanly(place: Place) -> None:
    clean = moved(SCHEME, place)
    assert (clean.code, clean.lost, clean.reordered) == (0, 0, 0), clean
    assert clean.verdict is not None and clean.verdict["clean"]


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
    found = moved(SCHEME, place, lambda: restart(at, unit))
    print(f"{unit} on the {side}: {found}")
    assert place.answers(), "the guest is reached, wherever it is now"
    for host in place.lab.hosts:
        wait_for(f"no migration to be open on {host.name}", lambda host=host: nothing_is_open(host), 120, 1)
    if unit == "openvswitch-switch":  # a switch that restarts loses frames by itself
        assert found.code in (0, 7, 8)
    elif found.code == 0:
        assert found.lost == 0, "a silent loss"
    elif found.code == NOT_CLEAN:
        assert found.verdict is not None and not found.verdict["clean"]
    else:
        assert (place.settled().name, found.lost) == (source.name, 0)
    moves_cleanly(place)


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
            restart(host, unit)
    for host in place.lab.hosts:
        host.wait_daemon()
        done = host.run(["vmnet", "doctor"], check=False, timeout=60)
        assert done.returncode == 0, done.stdout
    moves_cleanly(place)


def restart(host: Host, unit: str) -> None:
    host.run(["systemctl", "restart", unit], timeout=90)
