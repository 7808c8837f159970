"""What `vmnet doctor` finds out about the kernel, on this one and on one that lacks something."""

import errno
import os

import pytest

from dom0.dataplane import kernel_probe, netdev

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def by_name() -> dict[str, kernel_probe.Finding]:
    return {one.what: one for one in kernel_probe.examine()}


def test_this_kernel_has_all_that_is_needed_and_keeps_nothing_of_the_trial() -> None:
    before = set(netdev.all_names())
    findings = by_name()
    assert set(findings) == {"hold queue", "tunnel", "gate", "recorder", "priority", "barrier", "vhost-net"}
    assert all(one.works for one in findings.values() if one.needed), findings
    assert set(netdev.all_names()) == before


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("tunnel", "dom0.dataplane.tunnel.create"),
        ("gate", "dom0.dataplane.kernel_probe.Gate"),
        ("recorder", "dom0.dataplane.kernel_probe.Recorder"),
    ],
)
def test_a_part_that_the_kernel_lacks_is_named_with_its_error_and_the_others_are_tried(
    monkeypatch: pytest.MonkeyPatch, part: str, place: str
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(place, refused)
    findings = by_name()
    assert not findings[part].works and findings[part].needed
    assert "Operation not supported: " in findings[part].detail
    assert all(one.works for what, one in findings.items() if one.needed and what != part)


def test_without_taps_nothing_else_is_tried_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr("dom0.dataplane.kernel_probe.Park", missing)
    findings = by_name()
    assert not findings["hold queue"].works and "modprobe tun" in findings["hold queue"].detail
    assert "gate" not in findings and findings["tunnel"].works
