"""What is said of a tap that has gone: what was read last."""

import errno
import os

import pytest

from dom0.dataplane import netdev


@pytest.fixture
def counters() -> netdev.TapCounters:
    return netdev.TapCounters("lo")


@pytest.mark.parametrize("error", [errno.ENODEV, errno.EINVAL])
def test_a_device_that_has_gone_or_is_going_keeps_its_last_count(
    counters: netdev.TapCounters, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    monkeypatch.setattr(os, "pread", lambda *_: b"17\n")
    assert counters.taken() == 17

    def gone(*_: object) -> bytes:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "pread", gone)
    assert counters.taken() == 17
    counters.refresh()
    counters.close()


def test_another_error_is_not_hidden(counters: netdev.TapCounters, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(errno.EBADF, "bad")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(OSError, match="bad"):
        counters.taken()
