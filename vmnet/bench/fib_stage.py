"""A router and what is around it for ``vmnet bench fib`` and the tests: namespaces, FRR, BIRD.

Namespaces are held by descriptors and daemons die with us, so nothing is left however we end.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from vmnet.errors import LabError, WaitTimeoutError
from vmnet.lab import frr_programs
from vmnet.lab.spawn import last_line

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_START_S = 20.0

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)


class Namespace:
    """A network namespace that lives as long as this object and what runs in it. Entered by the calling thread with ``with``."""

    def __init__(self) -> None:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _check(_libc.setns(before, _CLONE_NEWNET), "setns")
        os.close(before)
        self._before: list[int] = []
        self.ip("link", "set", "lo", "up")

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def __enter__(self) -> Namespace:
        self._before.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        _check(_libc.setns(self.fd, _CLONE_NEWNET), "setns")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        before = self._before.pop()
        _check(_libc.setns(before, _CLONE_NEWNET), "setns")
        os.close(before)

    def popen(self, argv: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
        """A process in the namespace that ends with the thread that started it."""

        def enter() -> None:
            _libc.setns(self.fd, _CLONE_NEWNET)
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        return subprocess.Popen(argv, preexec_fn=enter, **how)

    def run(self, *argv: str, text: str | None = None) -> str:
        """What it prints. Raises LabError if it fails."""
        process = self.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(None if text is None else text.encode())
        if process.returncode:
            raise LabError(f"{' '.join(argv)}: {err.decode().strip() or out.decode().strip()}")
        return out.decode()

    def ip(self, *words: object) -> str:
        return self.run("ip", *map(str, words))

    def sysctl(self, name: str, value: str) -> None:
        with self:
            Path("/proc/sys/net", *name.split(".")).write_text(value)

    def close(self) -> None:
        os.close(self.fd)


def veth(one: Namespace, name: str, index: int, other: Namespace, other_name: str, other_index: int) -> None:
    """Two devices with given indices, up, without IPv6 duplicate address detection."""
    one.ip(
        *("link", "add", name, "index", index, "type", "veth", "peer", "name", other_name),
        *("index", other_index, "netns", other.path),
    )
    for space, device in ((one, name), (other, other_name)):
        space.sysctl(f"ipv6.conf.{device}.accept_dad", "0")
        space.ip("link", "set", device, "up")


def until(condition: Callable[[], Any], limit_s: float, what: str) -> None:
    """Asks every 2 ms. Raises WaitTimeoutError that says what was waited for."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise WaitTimeoutError(f"no {what} within {limit_s:g} s")
        time.sleep(0.002)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that the daemons' users may write in."""
    folder = Path(tempfile.mkdtemp(prefix="vmnet-fib."))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Frr:
    """zebra with its FPM module, staticd and, if asked for, bgpd in a namespace; their files are in ``folder``."""

    def __init__(
        self,
        space: Namespace,
        folder: Path,
        fpm: str = "",
        groups: bool = True,
        bgp: str = "",
        static: Sequence[str] = (),
    ) -> None:
        self._space = space
        self._folder = folder
        lines = [f"fpm address {fpm}"] if fpm else []
        self._configs = {"zebra": [*lines, ("" if groups else "no ") + "fpm use-next-hop-groups"]}
        if bgp:
            self._configs["bgpd"] = bgp.splitlines()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start(static)

    def start(self, static: Sequence[str] = ()) -> None:
        """With these lines of staticd's. Returns when every daemon can be spoken to."""
        self._configs["staticd"] = list(static)
        for daemon, lines in self._configs.items():
            config = self._folder / f"{daemon}.conf"
            config.write_text("\n".join(["hostname router", *lines, ""]))
        for daemon in frr_programs.with_manager(self._configs):
            self._start(daemon)

    def _start(self, daemon: str) -> None:
        vty = self._folder / f"{daemon}.vty"
        vty.unlink(missing_ok=True)
        more = ["-M", "dplane_fpm_nl"] if daemon == "zebra" else []
        argv = frr_programs.private_argv(self._folder, daemon, *more)
        log_file = self._folder / f"{daemon}.log"
        with log_file.open("ab") as log:
            process = self._space.popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes[daemon] = process

        def listens() -> bool:
            if process.poll() is not None:
                raise LabError(f"{daemon} ended", f"its log ends: {last_line(log_file)}")
            return vty.exists()

        until(listens, _START_S, f"vty socket of {daemon}")

    def kill(self) -> None:
        """All daemons, zebra first: it hears of nobody else's end."""
        for daemon in sorted(self._processes, key=lambda one: one != "zebra"):
            process = self._processes.pop(daemon)
            os.kill(frr_programs.innermost(process.pid), signal.SIGKILL)
            process.wait()

    def vty(self, *commands: str) -> str:
        words = [word for one in commands for word in ("-c", one)]
        return self._space.run("vtysh", "--vty_socket", str(self._folder), *words)

    def configure(self, lines: Iterable[str]) -> None:
        """More lines of configuration, passed by vtysh to the daemons that know them."""
        file = self._folder / "lines.conf"
        file.write_text("\n".join([*lines, ""]))
        self._space.run("vtysh", "--vty_socket", str(self._folder), "-f", str(file))


def bgpd_config(local: str, peer: str) -> str:
    """One neighbour that sends us what it has."""
    return f"""router bgp 65001
 bgp router-id {local}
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor {peer} remote-as 65002
 neighbor {peer} timers connect 1
"""


def prefixes(count: int) -> Iterator[str]:
    """Distinct IPv4 /24s from 20.0.0.0 on, none of them special."""
    for number in range(count):
        yield f"{20 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.0/24"


class Bird:
    """BIRD 2 in a namespace."""

    def __init__(self, space: Namespace, folder: Path, config: str, name: str = "bird") -> None:
        file = folder / f"{name}.conf"
        file.write_text(config)
        self._space = space
        self._control = folder / f"{name}.ctl"
        argv = ["bird", "-f", "-c", str(file), "-s", str(self._control)]
        self.process = space.popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._file = file
        until(self._answers, _START_S, "answer from BIRD")

    def _answers(self) -> bool:
        try:
            return "Daemon is up" in self.ask("show status")
        except LabError:
            return False

    def ask(self, command: str) -> str:
        return self._space.run("birdc", "-s", str(self._control), *command.split())

    def configure(self, config: str) -> None:
        self._file.write_text(config)
        self.ask("configure")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def bird_speaker(local: str, peer: str, count: int) -> str:
    """BIRD as a generator: ``count`` routes to one BGP neighbour."""
    routes = "\n".join(f"route {prefix} blackhole;" for prefix in prefixes(count))
    return f"""router id {local};
protocol device {{}}
protocol static generated {{ ipv4; {routes} }}
protocol bgp upstream {{
  local {local} as 65002; neighbor {peer} as 65001; connect retry time 1; connect delay time 1; error wait time 1, 2;
  ipv4 {{ import none; export all; next hop self; }};
}}
"""
