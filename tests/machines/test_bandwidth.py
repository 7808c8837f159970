"""A VM with a limit of what it sends (``virsh domiftune --outbound``): protected where the kernel has tcx, refused where not."""

from collections.abc import Iterator

import pytest
from disturbed import moved

from vmnet.bench.schemes import SCHEMES
from vmnet.bench.stage import VM, Place, stage
from vmnet.errors import ExitCode
from vmnet.lab import Host

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(1800)]
SCHEME = {12: SCHEMES["machines-vmnet"], 13: SCHEMES["machines-13-vmnet"]}
LIMIT_KBYTES_S = 4000


@pytest.fixture(params=[12, 13])
def release(request: pytest.FixtureRequest) -> int:
    request.getfixturevalue(f"debian{request.param}")
    return int(request.param)


@pytest.fixture
def place(release: int) -> Iterator[Place]:
    with stage("bandwidth", [SCHEME[release]], keep=False) as made:
        yield made.focus(SCHEME[release].lab)


def tap(host: Host) -> str:
    return str(host.run(["virsh", "-q", "domiflist", VM]).stdout.split()[0])


def limit(host: Host, kbytes_s: int) -> int:
    command = ["virsh", "domiftune", VM, tap(host), "--outbound", str(kbytes_s)]
    return host.run(command, check=False, timeout=60).returncode


def test_a_limit_and_a_migration(place: Place, release: int) -> None:
    source = place.settled()
    if release == 12:
        source.run(["tc", "qdisc", "del", "dev", tap(source), "clsact"])
    assert limit(source, LIMIT_KBYTES_S) == 0
    if release == 12:
        done = source.run(["vmnet", "migrate", VM, place.other(source).name], check=False, timeout=60)
        assert done.returncode == ExitCode.REFUSED and "domiftune" in done.stderr
        assert limit(source, 0) == 0
        found = moved(SCHEME[release], place)
        assert (found.code, found.lost) == (ExitCode.NOT_CLEAN, 0), (
            found
        )  # the tap got its qdisc under traffic
        assert found.verdict and "a limit" in found.verdict["unprotected"][0], found
        back = moved(SCHEME[release], place)
        assert (back.code, back.lost) == (0, 0), back
        return
    for _ in range(2):
        found = moved(SCHEME[release], place)
        assert (found.code, found.lost, found.reordered) == (0, 0, 0), found
        here = place.settled()
        said = here.run(["virsh", "domiftune", VM, tap(here)]).stdout
        assert f"outbound.average: {LIMIT_KBYTES_S}" in said
    assert limit(place.settled(), 0) == 0
