"""What the service manager is told, and the unit file that asks for it."""

import configparser
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller_bridge.api.words import SOCKET
from controller_bridge.settings import Settings
from vmnet import service_manager

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@vmnet-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if name.startswith("@") else name)
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listener


def test_ready_and_stopping_reach_the_service_manager(manager: socket.socket) -> None:
    service_manager.ready("host a is ready")
    service_manager.stopping()
    assert manager.recv(4096).decode().splitlines() == ["READY=1", "STATUS=host a is ready"]
    assert manager.recv(4096).decode().splitlines() == ["STOPPING=1", "STATUS=stopping"]


def test_without_a_service_manager_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    service_manager.ready("host a is ready")
    assert not caplog.records
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    service_manager.ready("host a is ready")
    assert f"cannot tell the service manager at {tmp_path}/gone" in caplog.text


def unit(name: str) -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read_string((SCRIPTS / name).read_text())
    return read


def test_the_unit_waits_for_readiness_and_lets_the_daemon_end_its_own_children() -> None:
    service = unit("vmnet-dom0d.service")["Service"]
    assert service["Type"] == "notify"
    assert service["KillMode"] == "mixed"


def test_the_controllers_unit_waits_for_readiness_and_has_a_folder_for_its_socket() -> None:
    service = unit("vmnet-controllerd.service")["Service"]
    assert service["Type"] == "notify"
    assert str(Path(SOCKET).parent) == f"/run/{service['RuntimeDirectory']}"
    assert str(Settings.key.parent) == f"/var/lib/{service['StateDirectory']}"
