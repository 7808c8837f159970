"""A guest whose QEMU may take only a part of a processor (cgroup quotas): a switchover takes longer, and loses nothing."""

import pytest
from disturbed import moved

from vmnet.bench.schemes import SCHEMES
from vmnet.bench.stage import VM, Stage

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(1800)]
SCHEME = SCHEMES["machines-vmnet"]
QUOTA_US = 50_000
"""Of each period of 100,000."""


def test_a_guest_with_processor_quotas_moves_there_and_back(ready: Stage) -> None:
    place = ready.focus(SCHEME.lab)
    limits = [f"{what}_quota={QUOTA_US}" for what in ("vcpu", "emulator")]
    place.settled().run(["virsh", "schedinfo", VM, "--live", *limits])
    for _ in range(2):
        found = moved(SCHEME, place)
        assert (found.code, found.lost, found.reordered) == (0, 0, 0), found
        assert found.verdict is not None and found.verdict["clean"]
        assert f"vcpu_quota     : {QUOTA_US}" in place.settled().run(["virsh", "schedinfo", VM]).stdout
