"""The hooks under real libvirtd and QEMU: what they see of a migration, and that they cannot harm one."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dom0.control_server import ControlServer, HookAnswer, HookCall
from hooks import install as installer
from vmnet.lab import Host, Lab, lab_up
from vmnet.lab.wait import wait_for

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

THEIRS = """#!/bin/sh
echo "$1 $2 $3" >> /run/theirs.log
[ "$2" = migrate ] && sed "s,<devices>,<title>t</title><devices>,"
exit 0
"""
DAEMON = "#!/bin/sh\n[ $2 = reload ] && : > /run/reloaded\nexit 0\n"


class Daemon:
    """Stands in for both hosts' daemons; keeps what the hooks said, answers what ``answer`` says."""

    def __init__(self, *hosts: Host) -> None:
        self.calls: list[tuple[str, HookCall]] = []
        self.answer: Callable[[str, HookCall], HookAnswer] = lambda host, call: HookAnswer()
        self._loop = asyncio.new_event_loop()
        self._servers = [self._server(host) for host in hosts]
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def _server(self, host: Host) -> ControlServer:
        async def on_hook(call: HookCall) -> HookAnswer:
            self.calls.append((host.name, call))
            return self.answer(host.name, call)

        async def on_request(_: object, __: object) -> dict[str, object]:
            return {}

        return ControlServer(host.daemon_socket, on_hook, on_request)

    def _serve(self) -> None:
        for server in self._servers:
            self._loop.run_until_complete(server.start())
        self._ready.set()
        self._loop.run_forever()
        for server in self._servers:
            self._loop.run_until_complete(server.stop())

    @contextmanager
    def running(self) -> Iterator["Daemon"]:
        self._thread.start()
        assert self._ready.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def steps(self, host: str) -> list[tuple[str, str]]:
        return [(call.op, call.subop) for where, call in self.calls if where == host]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_up("pair", f"hooks{os.getpid() % 10000}", hooks=False, daemon=False) as lab:
        yield lab


def migrate(lab: Lab, source: str, target: str) -> tuple[int, str]:
    to = lab.host(target)
    uris = [to.libvirt_uri, f"tcp://{to.address}"]
    done = lab.host(source).run(["virsh", "migrate", "--live", "vm1", *uris], check=False, timeout=120)
    return done.returncode, done.stderr


def reload_libvirt(host: Host) -> None:
    """SIGHUP: libvirtd looks for hooks anew, then runs the hook named daemon."""
    mark = host.run_dir / "reloaded"
    mark.unlink(missing_ok=True)
    libvirtd = host.service("libvirtd")
    assert libvirtd is not None
    os.kill(libvirtd.pid, signal.SIGHUP)
    wait_for(f"libvirtd on {host.name} to reload", mark.exists, 20)


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_a_migration_as_the_hooks_see_it(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    for host in (a, b):
        etc = host.var_dir / "etc-libvirt"
        script(etc / "hooks" / "daemon", DAEMON)
        installer.install(etc)
        reload_libvirt(host)
    script(b.var_dir / "etc-libvirt/hooks/qemu", THEIRS)

    with Daemon(a, b).running() as daemon:
        _migration_is_seen_and_changed(lab, daemon)
        _a_refusal_leaves_the_vm_at_the_source(lab, daemon)
        _reconnect_cannot_kill(lab, daemon)
    _without_the_daemon(lab)


WAITED_FOR = [("migrate", "begin"), ("started", "begin")]
TOLD = {"b": {("prepare", "begin"), ("start", "begin")}, "a": {("stopped", "end"), ("release", "end")}}


def _migration_is_seen_and_changed(lab: Lab, daemon: Daemon) -> None:
    def describe(_: str, call: HookCall) -> HookAnswer:
        return HookAnswer(xml=call.xml.replace(b"<title>t</title>", b"<title>t and ours</title>"))

    daemon.answer = describe
    assert migrate(lab, "a", "b") == (0, "")
    assert [one for one in daemon.steps("b") if one in WAITED_FOR] == WAITED_FOR
    for host, steps in TOLD.items():
        wait_for(
            f"the steps nobody waits for on {host}", lambda h=host, s=steps: s <= set(daemon.steps(h)), 5
        )
    assert all(call.name == "vm1" and call.xml.startswith(b"<domain") for _, call in daemon.calls)
    b = lab.host("b")
    assert "<title>t and ours</title>" in b.run(["virsh", "dumpxml", "vm1"]).stdout
    assert "vm1 migrate begin" in (b.run_dir / "theirs.log").read_text()


def _a_refusal_leaves_the_vm_at_the_source(lab: Lab, daemon: Daemon) -> None:
    def refuse(host: str, call: HookCall) -> HookAnswer:
        return HookAnswer(refuse="no br7 here" if (host, call.op) == ("a", "migrate") else "")

    daemon.answer = refuse
    code, error = migrate(lab, "b", "a")
    assert code != 0
    assert "no br7 here" in error
    assert [(one.vm, one.host) for one in lab.running_vms()] == [("vm1", "b")]
    daemon.answer = lambda host, call: HookAnswer()
    assert migrate(lab, "b", "a") == (0, "")


def _reconnect_cannot_kill(lab: Lab, daemon: Daemon) -> None:
    a = lab.host("a")
    before = lab.running_vms()
    daemon.answer = lambda host, call: HookAnswer(refuse="die")
    daemon.calls.clear()
    libvirtd = a.service("libvirtd")
    assert libvirtd is not None
    os.kill(libvirtd.pid, signal.SIGKILL)
    wait_for("libvirtd to end", lambda: a.service("libvirtd") is None, 10)
    (a.run_dir / "libvirtd.pid").unlink(missing_ok=True)
    a.start_libvirt()
    wait_for("libvirtd to reconnect to vm1", lambda: ("reconnect", "begin") in daemon.steps("a"), 20)
    wait_for(
        "libvirtd to answer", lambda: a.run(["virsh", "domstate", "vm1"], check=False).returncode == 0, 20
    )
    assert "running" in a.run(["virsh", "domstate", "vm1"]).stdout
    assert lab.running_vms() == before


def _without_the_daemon(lab: Lab) -> None:
    b = lab.host("b")
    installer.install(b.var_dir / "etc-libvirt", when_daemon_away="refuse")
    code, error = migrate(lab, "a", "b")
    assert code != 0
    assert "no daemon answers on /run/vmnet/dom0d.sock" in error
    installer.install(b.var_dir / "etc-libvirt", when_daemon_away="continue")
    assert migrate(lab, "a", "b") == (0, "")
    assert [(one.vm, one.host) for one in lab.running_vms()] == [("vm1", "b")]
