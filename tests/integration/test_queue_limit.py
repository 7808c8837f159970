"""What this kernel really gives, and a data path on a kernel that gives little."""

import errno
import os

import pytest

from dom0.dataplane import kernel_limits, netdev
from dom0.dataplane.park import Park

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def test_a_queue_of_the_probed_length_can_be_made_and_no_device_is_left() -> None:
    before = set(netdev.all_names())
    limits = kernel_limits.probe(524_288)
    assert kernel_limits.SHORTEST_QUEUE <= limits.queue_packets <= 524_288
    assert set(netdev.all_names()) == before
    length = limits.queue_packets + kernel_limits.SPARE_PACKETS
    park = Park("vmqtest0", length, 1500)
    try:
        assert netdev.get_queue_length("vmqtest0") == length
    finally:
        park.close()


@pytest.mark.parametrize("error", [errno.ERANGE, errno.ENOMEM, errno.EINVAL])
def test_a_kernel_with_a_short_limit_is_found_out(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    set_length = netdev.set_queue_length

    def as_on_6_1(name: str, packets: int) -> None:
        if packets > 32_767:
            raise OSError(error, os.strerror(error))
        set_length(name, packets)

    monkeypatch.setattr(netdev, "set_queue_length", as_on_6_1)
    assert kernel_limits.probe(262_144) == kernel_limits.KernelLimits(32_766, 262_144)


def test_another_error_is_not_taken_for_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, packets: int) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(netdev, "set_queue_length", refused)
    with pytest.raises(PermissionError):
        kernel_limits.probe(262_144)
