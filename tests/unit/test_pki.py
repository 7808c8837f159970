"""The small CA: right names, private keys private, nothing overwritten, expiry stated."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from vmnet import pki
from vmnet.cli.pki import pki as command
from vmnet.errors import ConfigError, NotFoundError, RefusedError


def test_files_names_modes_and_expiry(tmp_path: Path) -> None:
    ca = pki.init(tmp_path / "pki")
    info = pki.host("a", tmp_path / "pki", ["10.0.0.1", "fd00::1"])
    assert (ca.is_ca, info.is_ca) == (True, False)
    assert info.names == ("a", "vmnet:host:a", "10.0.0.1", "fd00::1")
    assert info.days_left(datetime.now(UTC) + timedelta(seconds=10)) == pki.HOST_DAYS - 1
    for key in (tmp_path / "pki/ca.key", tmp_path / "pki/a/host.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert {one.name for one in (tmp_path / "pki/a").iterdir()} == {"ca.pem", "host.pem", "host.key"}
    context = ssl.create_default_context(cafile=tmp_path / "pki/a/ca.pem")
    context.load_cert_chain(tmp_path / "pki/a/host.pem", tmp_path / "pki/a/host.key")


def test_a_host_does_not_outlive_its_ca(tmp_path: Path) -> None:
    ca = pki.init(tmp_path, days=10)
    assert pki.host("a", tmp_path).not_after == ca.not_after


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    pki.init(tmp_path)
    pki.host("a", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RefusedError, match=r"ca\.pem exists; give --force"):
        pki.init(tmp_path)
    with pytest.raises(RefusedError, match=r"host\.pem exists"):
        pki.host("a", tmp_path)
    assert {path: path.read_bytes() for path in before} == before
    pki.host("a", tmp_path, force=True)
    assert (tmp_path / "a/host.pem").read_bytes() != before[tmp_path / "a/host.pem"]


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"ca\.pem does not exist; create a CA first: vmnet pki init"):
        pki.host("a", tmp_path)
    pki.init(tmp_path)
    with pytest.raises(ConfigError, match="not a host name"):
        pki.host("../a", tmp_path)
    with pytest.raises(ConfigError, match="'x' is not an IP address"):
        pki.host("a", tmp_path, ["x"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        pki.init(tmp_path / "file")
    pki.init(tmp_path / "other")
    (tmp_path / "ca.key").write_bytes((tmp_path / "other/ca.key").read_bytes())
    with pytest.raises(ConfigError, match="does not belong"):
        pki.host("a", tmp_path)
    (tmp_path / "ca.pem").write_text("x")
    with pytest.raises(ConfigError, match="no certificate in PEM"):
        pki.host("a", tmp_path)


def test_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    folder = str(tmp_path / "pki")
    assert "expires" in run(command, ["init", folder], catch_exceptions=False).output
    made = run(command, ["host", "a", folder, "--address", "10.0.0.1"], catch_exceptions=False).output
    assert f"{folder}/a" in made
    assert "/etc/vmnet/pki" in made
    shown = run(command, ["show", folder], catch_exceptions=False).output
    assert "vmnet CA" in shown
    assert "vmnet:host:a" in shown
    assert '"days_left": 824' in run(command, ["show", folder, "--json"], catch_exceptions=False).output
    assert isinstance(run(command, ["show", str(tmp_path / "none")]).exception, NotFoundError)
