"""The hook as libvirt runs it: as a process, against a real socket; and its installer."""

import asyncio
import json
import os
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from dom0.control_server import ControlServer, HookAnswer, HookCall
from hooks import install as installer
from hooks import libvirtd
from vmnet.cli.hooks import hooks as command
from vmnet.errors import ConfigError, NotFoundError, RefusedError

XML = b"<domain><name>vm</name></domain>"


class Host:
    """A libvirt configuration with our hooks, and what a daemon would answer them."""

    def __init__(self, folder: Path) -> None:
        self.etc = folder / "etc"
        self.etc.mkdir()
        self.socket = folder / "run" / "d.sock"

    def install(self, **settings: object) -> None:
        installer.install(self.etc, socket_path=str(self.socket), **settings)  # type: ignore[arg-type]

    def run(self, driver: str, *words: str, xml: bytes = XML) -> tuple[int, bytes, str]:
        script = self.etc / "hooks" / f"{driver}.d" / "50-vmnet"
        done = subprocess.run([script, *words], input=xml, capture_output=True, timeout=30)
        return done.returncode, done.stdout, done.stderr.decode()

    @contextmanager
    def daemon(self, answer: Callable[[HookCall], HookAnswer]) -> Iterator[list[HookCall]]:
        calls: list[HookCall] = []

        async def on_hook(call: HookCall) -> HookAnswer:
            calls.append(call)
            return answer(call)

        async def on_request(_: object, __: object) -> dict[str, object]:
            return {}

        ready = threading.Event()
        loop = asyncio.new_event_loop()
        server = ControlServer(self.socket, on_hook, on_request)

        def serve() -> None:
            loop.run_until_complete(server.start())
            ready.set()
            loop.run_forever()
            loop.run_until_complete(server.stop())

        thread = threading.Thread(target=serve)
        thread.start()
        assert ready.wait(10)
        yield calls
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_call_and_new_xml(host: Host) -> None:
    host.install()
    with host.daemon(lambda call: HookAnswer(xml=call.xml.replace(b"vm", b"VM"))) as calls:
        assert host.run("qemu", "my vm", "migrate", "begin", "-") == (0, XML.replace(b"vm", b"VM"), "")
        assert host.run("libxl", "\u00fc", "migrate", "begin", "-", xml=b"") == (0, b"", "")
    assert calls == [
        HookCall("qemu", "my vm", "migrate", "begin", "-", XML),
        HookCall("libxl", "\u00fc", "migrate", "begin", "-", b""),
    ]


def test_xml_is_printed_at_migrate_only(host: Host) -> None:
    host.install()
    with host.daemon(lambda call: HookAnswer(xml=call.xml)):
        assert host.run("qemu", "vm", "started", "begin", "-") == (0, b"", "")


def test_large_xml_passes_and_too_large_goes_on(host: Host) -> None:
    host.install(timeout_ms=20_000)
    xml = b"<domain>" + b" " * 1_000_000 + b"</domain>"
    with host.daemon(lambda call: HookAnswer(xml=call.xml)) as calls:
        assert host.run("qemu", "vm", "migrate", "begin", "-", xml=xml)[:2] == (0, xml)
        code, out, err = host.run("qemu", "vm", "migrate", "begin", "-", xml=xml + b" " * 100_000)
        assert (code, out) == (0, b"")
        assert "more than 1048576 bytes; it goes on without vmnet" in err
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("driver", "op", "subop", "fails"),
    [
        ("qemu", "migrate", "begin", True),
        ("qemu", "started", "begin", False),
        ("qemu", "reconnect", "begin", False),
        ("libxl", "migrate", "begin", False),
        ("libxl", "prepare", "begin", True),
        ("libxl", "start", "begin", True),
        ("libxl", "started", "begin", False),
        ("libxl", "reconnect", "begin", False),
    ],
)
def test_refusals_fail_only_where_that_is_clean(
    host: Host, driver: str, op: str, subop: str, fails: bool
) -> None:
    host.install()
    with host.daemon(lambda _: HookAnswer(refuse="no such bridge")):
        code, out, err = host.run(driver, "vm", op, subop, "-")
    assert (code, out) == (int(fails), b"")
    assert "no such bridge" in err
    assert ("too late, it goes on" in err) != fails


def test_without_a_daemon_it_goes_on(host: Host) -> None:
    host.install()
    for op in ("migrate", "started", "reconnect"):
        code, out, err = host.run("qemu", "vm", op, "begin", "-")
        assert (code, out) == (0, b"")
        assert f"vmnet: vm {op} begin: no daemon answers on {host.socket}" in err


def test_without_a_daemon_it_refuses_migrations_if_told(host: Host) -> None:
    host.install(when_daemon_away="refuse")
    code, _, err = host.run("qemu", "vm", "migrate", "begin", "-")
    assert code == 1
    assert "start it: systemctl start vmnet-dom0d" in err
    assert host.run("qemu", "vm", "prepare", "begin", "-")[0] == 0  # an ordinary start
    assert host.run("qemu", "vm", "reconnect", "begin", "-")[0] == 0


def test_libxl_refuses_at_the_prepare_that_follows_migrate(host: Host) -> None:
    host.install(when_daemon_away="refuse")
    name = "../a/b c"
    assert host.run("libxl", name, "prepare", "begin", "-")[0] == 0  # an ordinary start
    assert host.run("libxl", name, "migrate", "begin", "-")[0] == 0
    assert [one.name for one in host.socket.parent.iterdir()] == ["refuse-..%2Fa%2Fb%20c"]
    assert host.run("libxl", "other", "prepare", "begin", "-")[0] == 0
    assert host.run("libxl", name, "prepare", "begin", "-")[0] == 1
    assert host.run("libxl", name, "prepare", "begin", "-")[0] == 0  # the note was for once
    host.run("libxl", name, "migrate", "begin", "-")
    os.utime(next(host.socket.parent.iterdir()), (1, 1))
    assert host.run("libxl", name, "prepare", "begin", "-")[0] == 0  # and not for ever


@pytest.mark.parametrize(
    "answer", [b"", b"OK 5\nabc", b"OK x\n", b"\xff\xfe", b"OK 0\nextra", b"OK" * 600_000]
)
def test_a_garbling_daemon_counts_as_away(host: Host, answer: bytes) -> None:
    host.install()
    host.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.socket))
        listener.listen()

        def reply() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1000)
                with suppress(OSError):
                    sock.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        code, out, err = host.run("qemu", "vm", "migrate", "begin", "-")
        thread.join(10)
    assert (code, out) == (0, b"")
    assert "it goes on without vmnet" in err


def test_a_silent_daemon_costs_the_timeout_and_no_more(host: Host) -> None:
    host.install(timeout_ms=100)
    host.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.socket))
        listener.listen()
        began = time.monotonic()
        code, _, err = host.run("qemu", "vm", "migrate", "begin", "-")
        assert 0.1 <= time.monotonic() - began < 5
    assert code == 0
    assert "did not answer within 100 ms" in err


@pytest.mark.parametrize(
    "words", [(), ("vm",), ("vm", "migrate", "begin"), ("x" * 2000, "migrate", "begin", "-")]
)
def test_strange_arguments_are_logged(host: Host, words: tuple[str, ...]) -> None:
    host.install(when_daemon_away="refuse")
    code, out, err = host.run("qemu", *words)
    assert (code, out) == (0, b"")
    assert "arguments that libvirt does not give" in err


def test_bytes_that_are_no_utf8_and_control_characters(host: Host) -> None:
    host.install()
    script = host.etc / "hooks/qemu.d/50-vmnet"
    for name in (b"\xff", b"\x1b[2J\n"):
        with host.daemon(lambda _: HookAnswer()) as calls:
            done = subprocess.run([script, name, b"started", b"begin", b"-"], input=b"", capture_output=True)
        assert done.returncode == 0
        assert done.stderr.count(b"\n") == 1
        assert b"\x1b" not in done.stderr
        assert not calls


def test_no_python_never_fails_a_step(host: Host) -> None:
    host.install(when_daemon_away="refuse")
    script = host.etc / "hooks/qemu.d/50-vmnet"
    text = script.read_text().replace("PYTHON=/usr/bin/python3", "PYTHON=/no/python")
    assert "/no/python" in text
    script.write_text(text)
    assert host.run("qemu", "vm", "migrate", "begin", "-")[0] == 0
    assert host.run("qemu", "vm", "reconnect", "begin", "-")[0] == 0


def test_a_broken_hook_can_never_fail_reconnect(host: Host) -> None:
    host.install()
    script = host.etc / "hooks/qemu.d/50-vmnet"
    script.write_text(script.read_text().replace("import time", "posix._exit(3)"))
    assert host.run("qemu", "vm", "migrate", "begin", "-")[0] == 1
    assert host.run("qemu", "vm", "reconnect", "begin", "-")[0] == 0


def test_the_packaged_scripts_are_the_same_code() -> None:
    for name in ("qemu", "libxl"):
        assert (installer.SOURCE.parent / name).read_bytes() == installer.SOURCE.read_bytes()


def test_install_twice_status_uninstall(host: Host) -> None:
    assert [one.state for one in installer.status(host.etc)] == ["absent", "absent"]
    assert [one.action for one in installer.install(host.etc)] == ["installed", "installed"]
    assert [one.action for one in installer.install(host.etc)] == ["unchanged", "unchanged"]
    assert [one.action for one in installer.install(host.etc, timeout_ms=99)] == ["updated", "updated"]
    found = installer.status(host.etc)
    assert [one.state for one in found] == ["installed", "installed"]
    assert dict(found[0].settings)["timeout_ms"] == "99"
    assert [one.action for one in installer.uninstall(host.etc)] == ["removed", "removed"]
    assert list(host.etc.iterdir()) == []
    assert [one.action for one in installer.uninstall(host.etc)] == ["absent", "absent"]


def test_what_others_put_there_stays(host: Host) -> None:
    theirs = host.etc / "hooks" / "qemu.d" / "10-theirs"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("#!/bin/sh\n")
    theirs.chmod(0o755)
    main = host.etc / "hooks" / "qemu"
    main.write_text("#!/bin/sh\n")
    main.chmod(0o755)
    installer.install(host.etc)
    assert installer.status(host.etc)[0].others == (str(main), str(theirs))
    installer.uninstall(host.etc)
    assert sorted(one.name for one in host.etc.rglob("*")) == ["10-theirs", "hooks", "qemu", "qemu.d"]


def test_a_changed_or_foreign_file_is_not_touched_unasked(host: Host) -> None:
    installer.install(host.etc, drivers=["qemu"])
    script = host.etc / "hooks/qemu.d/50-vmnet"
    script.write_text(script.read_text() + "# mine\n")
    assert installer.status(host.etc)[0].state == "modified"
    with pytest.raises(RefusedError, match="is modified; look at it; give --force"):
        installer.install(host.etc, drivers=["qemu"])
    assert [one.action for one in installer.uninstall(host.etc, ["qemu"])] == ["kept"]
    assert script.read_text().endswith("# mine\n")
    script.write_text("#!/bin/sh\n")
    assert installer.status(host.etc)[0].state == "foreign"
    installer.install(host.etc, drivers=["qemu"], force=True)
    assert installer.status(host.etc)[0].state == "installed"


@pytest.mark.parametrize("path", ["relative", '/a"; rm -rf /; "', "/a b", "/a'''", "/a\n"])
def test_settings_that_could_break_a_script_are_refused(host: Host, path: str) -> None:
    with pytest.raises(ConfigError):
        installer.install(host.etc, socket_path=path)
    with pytest.raises((ConfigError, NotFoundError)):
        installer.install(host.etc, python=path)
    assert not (host.etc / "hooks").exists()


def test_no_libvirt(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="install libvirt, or give --etc-libvirt"):
        installer.install(tmp_path / "none")


def test_reload_is_asked_for_only_if_libvirt_saw_no_hook(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    started = [0.0]
    monkeypatch.setattr(installer, "looked_s", lambda _: started[0])
    installer.install(host.etc)
    assert installer.status(host.etc)[0].reload_needed
    installer.install(host.etc, timeout_ms=77)
    started[0] = (host.etc / "hooks/qemu.d/50-vmnet").stat().st_mtime + 1
    assert not installer.status(host.etc)[0].reload_needed
    started[0] -= 10
    main = host.etc / "hooks/qemu"
    main.write_text("#!/bin/sh\n")
    main.chmod(0o755)
    os.utime(main, (1, 1))
    assert not installer.status(host.etc)[0].reload_needed


def test_start_of_a_process(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        (tmp_path / str(child.pid)).mkdir()
        (tmp_path / "self/ns").mkdir(parents=True)
        (tmp_path / "self/ns/mnt").symlink_to("mnt:[1]")
        process = tmp_path / str(child.pid)
        (process / "ns").mkdir()
        (process / "ns/mnt").symlink_to("mnt:[1]")
        (process / "comm").write_text("libvirtd\n")
        (process / "stat").write_text(Path(f"/proc/{child.pid}/stat").read_text())
        (tmp_path / "99999").mkdir()
        try:
            found = libvirtd.looked_s("qemu", tmp_path)
            assert found is not None
            assert abs(found - time.time()) < 60
            assert libvirtd.looked_s("libxl", tmp_path) == pytest.approx(found, abs=1)
            (process / "comm").write_text("virtqemud\n")
            assert libvirtd.looked_s("libxl", tmp_path) is None
        finally:
            child.kill()


def test_a_reload_counts_if_systemd_made_it_of_that_very_process() -> None:
    shown = "MainPID=7\nActiveState=active\nStateChangeTimestampMonotonic={}\n"
    just_now = shown.format(int((time.monotonic() - 3) * 1e6))
    found = libvirtd.reloaded_s(just_now, 7)
    assert found is not None and found == pytest.approx(time.time() - 3, abs=1)
    assert libvirtd.reloaded_s(just_now, 8) is None
    assert libvirtd.reloaded_s(just_now.replace("=active", "=reloading"), 7) is None
    assert libvirtd.reloaded_s("", 7) is None
    assert libvirtd.reloaded_s("MainPID=7\nActiveState=active\nStateChangeTimestampMonotonic=\n", 7) is None


def test_commands(host: Host) -> None:
    folder = ["--etc-libvirt", str(host.etc)]
    config = host.etc / "vmnet.toml"
    config.write_text("[hooks]\ntimeout_ms = 123\n")
    run = CliRunner().invoke
    done = run(command, ["install", *folder, "--config", str(config)], catch_exceptions=False).output
    assert "50-vmnet: installed" in done
    shown = run(command, ["status", *folder], catch_exceptions=False).output
    assert "timeout_ms 123" in shown
    data = json.loads(run(command, ["status", *folder, "--json"], catch_exceptions=False).output)
    assert [one["state"] for one in data["hooks"]] == ["installed", "installed"]
    assert "removed" in run(command, ["uninstall", *folder], catch_exceptions=False).output


STEPS = ["migrate begin", "prepare begin", "start begin", "started begin"]


@pytest.mark.parametrize(
    ("driver", "settings", "kept_waiting", "told"),
    [
        ("qemu", {}, set(), {"start begin", "started begin"}),
        ("qemu", {"when_daemon_away": "refuse"}, {"migrate begin", "started begin"}, set(STEPS)),
        ("libxl", {}, set(STEPS), set(STEPS)),
    ],
)
def test_a_marked_vm_keeps_nobody_waiting(
    host: Host, driver: str, settings: dict[str, str], kept_waiting: set[str], told: set[str]
) -> None:
    """Unless a daemon that has died since is to be missed; and Xen has no such steps."""
    host.install(**settings)
    for folder in ("expected", "prepared"):
        (host.socket.parent / folder).mkdir(parents=True)
        (host.socket.parent / folder / "my vm").touch()
    heard: queue.Queue[str] = queue.Queue()
    waited: set[str] = set()

    def answer(call: HookCall) -> HookAnswer:
        step = f"{call.op} {call.subop}"
        if not gone_on[step].wait(1.0 if step in kept_waiting else 10.0):
            waited.add(step)
        heard.put(step)
        return HookAnswer()

    gone_on = {step: threading.Event() for step in STEPS}
    with host.daemon(answer):
        for step in STEPS:
            assert host.run(driver, "my vm", *step.split(), "-", xml=b"<domain/>") == (0, b"", "")
            gone_on[step].set()
            if step in told:
                assert heard.get(timeout=10) == step
    assert waited == kept_waiting and heard.empty()


@pytest.mark.parametrize(
    ("op", "subop"),
    [("prepare", "begin"), ("start", "begin"), ("stopped", "end"), ("release", "end")],
)
def test_libvirt_does_not_wait_where_nothing_is_answered(host: Host, op: str, subop: str) -> None:
    host.install()
    heard, answer = threading.Event(), threading.Event()

    def late(call: HookCall) -> HookAnswer:
        assert (call.op, call.subop, call.xml) == (op, subop, b"<domain/>")
        heard.set()
        answer.wait(10)
        return HookAnswer()

    with host.daemon(late):
        assert host.run("qemu", "vm", op, subop, "-", xml=b"<domain/>") == (0, b"", "")
        assert not answer.is_set() and heard.wait(10)
        answer.set()


@pytest.mark.parametrize("settings", [{}, {"when_daemon_away": "refuse"}])
def test_a_start_of_a_vm_that_runs_elsewhere_is_asked_for(host: Host, settings: dict[str, str]) -> None:
    host.install(**settings)
    folder = host.socket.parent / "elsewhere"
    folder.mkdir(parents=True)
    (folder / "my vm").touch()
    with host.daemon(lambda _call: HookAnswer(refuse="my vm runs on b")):
        code, _out, complaint = host.run("qemu", "my vm", "prepare", "begin", "-", xml=b"<domain/>")
        assert code == 1 and "my vm runs on b" in complaint
    assert host.run("qemu", "my vm", "prepare", "begin", "-", xml=b"<domain/>")[0] == 0, (
        "no daemon, no refusal"
    )
