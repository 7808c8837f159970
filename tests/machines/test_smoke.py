"""Two full Debian machines come up from their image, a VM moves between them under the meter, and they go away."""

import evidence
import pytest

from vmnet.bench.rows import Case
from vmnet.bench.schemes import SCHEMES
from vmnet.bench.stage import stage
from vmnet.bench.vm import Bench, Settings, Step
from vmnet.lab import status
from vmnet.lab.paths import known_labs

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(900)]
RATE_PPS = 100


def test_a_vm_moves_between_debian_12_machines_without_loss(debian12):
    scheme = SCHEMES["machines-vmnet"]
    settings = Settings([scheme.name], [RATE_PPS], ["idle"], runs=1, controls=0)
    with stage("smoke", [scheme], keep=False) as ready:
        place = ready.focus(scheme.lab)
        a = place.lab.host("a")
        inside = a.run(
            ["sh", "-c", "uname -r; cat /sys/module/apparmor/parameters/enabled; pgrep -a '^(qemu|vhost)'"]
        ).stdout
        kernel, apparmor, processes = inside.split("\n", 2)
        assert kernel.startswith("6.1.0-") and apparmor == "Y"
        assert "-accel kvm" in processes and "vhost-" in processes
        assert status.dead_parts(place.lab) == []
        row = Bench(settings, ready).step(Step(Case(scheme.name, RATE_PPS, 64, "idle"), 0, False))
        if row.error or row.lost or row.reordered:
            evidence.show(place, row)
        assert row.error == ""
        assert (row.lost, row.reordered) == (0, 0)
        assert row.sent > RATE_PPS and row.verdict["lost"] == 0
        assert "6.1" in row.platform
        assert place.where().name == "b"
    assert "smoke-machines-vmnet" not in known_labs()
