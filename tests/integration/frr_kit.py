"""Two routers (FRR) on a host's bridge: one stands in for a VM, the other is its neighbour."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataplane_kit import Host, bridge, die_with_parent, ip, until, veth

from dom0.router.keepalive_port import KeepaliveWatch
from vmnet.lab import frr_programs

FRR = frr_programs.PROGRAMS
_LIMIT_S = 20.0
_ROUTER_MAC = "52:54:00:00:00:01"


class Router:
    """zebra and ``daemon`` in the foreground, below the test: they end with it. ``text``: the daemon's configuration."""

    def __init__(self, name: str, host: Host, daemon: str, text: str, folder: Path) -> None:
        self.name, self._folder, self._host, self._name = name, folder / name, host, daemon
        self._folder.mkdir()
        owner = pwd.getpwnam("frr")
        self._write("zebra.conf", f"hostname {name}\n")
        self._write(f"{daemon}.conf", f"hostname {name}\n{text}")
        os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        self._daemons = [self._start(one) for one in frr_programs.with_manager(("zebra", daemon))]

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        path.write_text(text)
        path.chmod(0o644)

    def _start(self, daemon: str) -> subprocess.Popen[bytes]:
        log = self._folder / f"{daemon}.log"
        with self._host, log.open("wb") as out:
            process = subprocess.Popen(
                frr_programs.private_argv(self._folder, daemon, "--log", "stdout"),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=die_with_parent,
            )

        def listens() -> bool:
            assert process.poll() is None, f"{daemon} ended: {log.read_text(errors='replace')[:2000]}"
            return (self._folder / f"{daemon}.vty").exists()

        until(listens, _LIMIT_S, f"{daemon} listens")
        return process

    def say(self, *commands: str) -> str:
        """What the daemon answers. AssertionError if it refuses one of ``commands``."""
        words = ["vtysh", "--vty_socket", str(self._folder), "-d", self._name]
        for one in commands:
            words += ["-c", one]
        said = subprocess.run(words, capture_output=True, text=True, timeout=_LIMIT_S)
        assert said.returncode == 0, (said, self.log())
        return said.stdout

    def show(self, what: str) -> Any:
        return json.loads(self.say(f"show {what} json"))

    def peers(self) -> dict[str, dict[str, Any]]:
        """By address: state, uptime and counters of the session."""
        found = {one["peer"]: one for one in self.show("bfd peers")}
        for one in self.show("bfd peers counters"):
            found[one["peer"]] |= one
        return found

    def all_up(self) -> bool:
        peers = self.peers()
        return bool(peers) and all(one["status"] == "up" for one in peers.values())

    def any_up(self) -> bool:
        return any(one["status"] == "up" for one in self.peers().values())

    def downs(self) -> dict[str, int]:
        """How often each session has gone down, as FRR counts it."""
        return {address: one["session-down"] for address, one in self.peers().items()}

    def _signal(self, number: int) -> None:
        os.kill(frr_programs.innermost(self._daemons[-1].pid), number)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def log(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in self._folder.glob("*.log"))

    def close(self) -> None:
        for one in reversed(self._daemons):
            one.kill()
            one.wait()


class Scene:
    """router --tap-- bridge of the host --wire-- neighbour."""

    def __init__(self, daemon: str, router_text: str, neighbour_text: str, folder: Path) -> None:
        self.host, self.router_host, self.neighbour_host = Host(), Host(), Host()
        veth(self.router_host, "eth0", self.host, "tap")
        veth(self.neighbour_host, "eth0", self.host, "wire")
        with self.host:
            bridge("br0", "tap", "wire")
        with self.router_host:
            ip("link", "set", "eth0", "address", _ROUTER_MAC)
        for one, number in ((self.router_host, 1), (self.neighbour_host, 2)):
            with one:
                Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").write_text("0")
                ip("addr", "add", f"192.0.2.{number}/24", "dev", "eth0")
                ip("addr", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad")
        self.router = Router("router", self.router_host, daemon, router_text, folder)
        self.neighbour = Router("neighbour", self.neighbour_host, daemon, neighbour_text, folder)

    def watch(self) -> KeepaliveWatch:
        with self.host:
            return KeepaliveWatch("tap", bytes.fromhex(_ROUTER_MAC.replace(":", "")))

    def sender(self) -> socket.socket:
        """What is sent on the wire is for the neighbour's ears, as if the host's bridge had forwarded it."""
        with self.host:
            packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            packets.bind(("wire", 0))
        return packets


@contextmanager
def scene(daemon: str, router_text: str, neighbour_text: str) -> Iterator[Scene]:
    """Both routers run ``daemon``, configured with their texts."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        made = Scene(daemon, router_text, neighbour_text, folder)
        try:
            yield made
        finally:
            made.router.close()
            made.neighbour.close()
    finally:
        shutil.rmtree(folder)


@contextmanager
def standing_still(router: Router) -> Iterator[None]:
    router.freeze()
    try:
        yield
    finally:
        router.thaw()
