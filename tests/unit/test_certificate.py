"""A host's own certificate and key: said before peers refuse it, and before somebody else has the key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dom0 import certificate
from vmnet import pki
from vmnet.config import Tls


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    pki.init(tmp_path)
    pki.host("a", tmp_path, days=100)
    there = tmp_path / "a"
    return Tls(there / "ca.pem", there / "host.pem", there / "host.key")


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def test_nothing_is_said_of_good_ones_or_without_tls(tls: Tls, tmp_path: Path) -> None:
    assert certificate.problems(tls) == []
    assert (
        certificate.problems(Tls(tmp_path / "none", tmp_path / "none", tmp_path / "none", plain=True)) == []
    )


@pytest.mark.parametrize(
    ("days", "words"),
    [(69, ""), (71, "expires in 28 days"), (99.5, "expires in 0 days"), (101, "has expired on")],
)
def test_the_end_is_said_from_30_days_on(tls: Tls, days: float, words: str) -> None:
    (found,) = certificate.problems(tls, in_days(days)) or [""]
    assert words in found and bool(found) == bool(words)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read(tls: Tls, mode: int) -> None:
    tls.key.chmod(mode)
    (found,) = certificate.problems(tls)
    assert f"mode {mode:o}" in found and f"chmod 600 {tls.key}" in found


def test_what_is_missing_is_said(tls: Tls) -> None:
    tls.key.unlink()
    (found,) = certificate.problems(tls)
    assert "cannot be read" in found
