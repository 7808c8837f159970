"""A node of a running lab: a namespace that commands can be run in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vmnet.errors import LabError
from vmnet.lab import command, enter, spawn
from vmnet.lab.paths import LabPaths
from vmnet.lab.procs import Proc, recorded
from vmnet.lab.topology import Node as Spec
from vmnet.lab.wait import wait_for

T = TypeVar("T")

# What a node has for itself: folder of the node -> what it is mounted over.
PRIVATE = {
    "etc-libvirt": "/etc/libvirt",
    "lib-libvirt": "/var/lib/libvirt",
    "cache-libvirt": "/var/cache/libvirt",
    "log-libvirt": "/var/log/libvirt",
    "etc-vmnet": "/etc/vmnet",
    "lib-vmnet": "/var/lib/vmnet",
}
# The same of a node with FRR, whose sockets are below its own /run anyway.
FRR_PRIVATE = {"etc-frr": "/etc/frr", "lib-frr": "/var/lib/frr", "var-tmp": "/var/tmp"}
# And of a node with the controller.
CONTROLLER_PRIVATE = {"etc-vmnet": "/etc/vmnet", "lib-vmnet": "/var/lib/vmnet"}
_RUN_FOLDERS = ("lock", "libvirt", "vmnet", "openvswitch", "netns")

# Names of the lab's nodes resolve; nothing else does, at once (a name server that is out of reach costs half a minute).
NAMES = {"hosts": "/etc/hosts", "resolv.conf": "/etc/resolv.conf"}

# Arguments: host name, source of /run, then pairs of source and mount point. /sys shows its own namespace's interfaces
# only when mounted anew (as ip-netns(8) does); eBPF objects can be pinned again.
_HOLDER = """
set -e
hostname "$1"; run=$2; shift 2
umount --lazy /sys; mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf 2>/dev/null || true
while [ $# -gt 0 ]; do [ ! -e "$2" ] || mount --bind "$1" "$2"; shift 2; done
mount --bind "$run" /run
: > /run/.ready
exec sleep infinity
"""


class Node:
    """A network namespace with mounts and a host name of its own, kept by a holder process."""

    def __init__(self, paths: LabPaths, spec: Spec) -> None:
        self.paths = paths
        self.spec = spec

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def netns_name(self) -> str:
        return self.paths.netns_name(self.name)

    @property
    def netns_path(self) -> Path:
        return self.paths.netns(self.name)

    @property
    def netns_inode(self) -> int | None:
        """None when the namespace is gone."""
        try:
            return self.netns_path.stat().st_ino
        except OSError:
            return None

    @property
    def run_dir(self) -> Path:
        """What the node sees as /run, as seen from outside."""
        return self.paths.node_run(self.name)

    @property
    def var_dir(self) -> Path:
        return self.paths.node_var(self.name)

    @property
    def pid(self) -> int:
        """Pid of the holder process. Raises LabError when it is gone."""
        holder = self.service("holder")
        if holder is None:
            raise LabError(f"node {self.name} of lab {self.paths.name} is dead", "run 'vmnet lab up' again")
        return holder.pid

    def service(self, role: str) -> Proc | None:
        """The living process of that role (holder, libvirtd, dom0d, ovsdb, vswitchd), None when there is none."""
        proc = recorded(self.pid_file(role))
        return proc if proc and proc.alive else None

    def pid_file(self, role: str) -> Path:
        return self.paths.pids / f"{self.name}.{role}"

    def log_file(self, role: str) -> Path:
        return self.paths.logs / f"{self.name}.{role}.log"

    def daemons(self) -> list[str]:
        """Roles of its processes besides those that follow from the topology alone."""
        return []

    def freeze(self) -> None:
        """Let a whole machine stand still; a namespace goes on."""

    def thaw(self) -> None:
        """Let it go on. Its clock is right."""

    def pids(self, roles: Sequence[str]) -> dict[str, int | None]:
        """Role -> pid, None when it does not live."""
        return {role: found.pid if (found := self.service(role)) else None for role in roles}

    def namespace_argv(self, argv: Sequence[str], cwd: str | None = None) -> list[str]:
        """The command line that runs ``argv`` in the node's namespaces."""
        return enter.argv(self.pid, argv, cwd)

    def argv(self, argv: Sequence[str], cwd: str | None = None) -> list[str]:
        """The command line that runs ``argv`` inside the node."""
        return self.namespace_argv(argv, cwd)

    def interactive_argv(self, argv: Sequence[str]) -> list[str]:
        """As :meth:`argv`, for a user at our own terminal if there is one."""
        return self.argv(argv)

    def run(
        self, argv: Sequence[str], *, text: str | None = None, check: bool = True, timeout: float = 30.0
    ) -> command.Completed:
        """Run a program in the node and collect its output.

        Raises LabError when it fails (unless ``check`` is false) or takes longer than ``timeout`` seconds.
        """
        try:
            return command.run(self.argv(argv), text=text, check=check, timeout=timeout)
        except LabError as error:
            raise LabError(f"on {self.name}: {_without_entering(error.message)}", error.hint) from None

    def vtysh(self, *commands: str, timeout: float = 30.0) -> str:
        """What the node's FRR answers to these commands, one after the other. Raises LabError when it refuses one."""
        words = [word for command in commands for word in ("-c", command)]
        return str(self.run(["vtysh", *words], timeout=timeout).stdout)

    def vtysh_json(self, command: str, timeout: float = 30.0) -> Any:
        """As :meth:`vtysh` for one command that ends in ``json``. Raises LabError when the answer is none."""
        answer = self.vtysh(command, timeout=timeout)
        try:
            return json.loads(answer)
        except ValueError:
            raise LabError(f"on {self.name}: '{command}' answers no JSON: {answer.strip()[:100]}") from None

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in the node; options as for subprocess.Popen."""
        return subprocess.Popen(self.argv(argv, options.pop("cwd", None)), **options)

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in the node's network namespace; sockets that it opens stay there."""
        return enter.call(self.netns_path, function)

    def spawn(self, role: str, argv: Sequence[str], *, reaped: bool = False) -> Proc:
        """Start a daemon in the node that outlives this program; ``reaped``: see :func:`spawn.spawn_reaped`."""
        start = spawn.spawn_reaped if reaped else spawn.spawn
        return start(self.argv(argv, "/"), self.pid_file(role), self.log_file(role))

    def hold(self, hosts_file: str) -> None:
        """Start the holder. The network namespace must exist."""
        folders = self._make_folders()
        (self.var_dir / "hosts").write_text(hosts_file)
        (self.var_dir / "resolv.conf").write_text("")
        unshare = ["unshare", "--mount", "--uts", "--propagation=private", "--"]
        arguments = [self.name, str(self.run_dir), *folders]
        argv = [
            "nsenter",
            f"--net={self.netns_path}",
            "--",
            *unshare,
            "/bin/sh",
            "-c",
            _HOLDER,
            "holder",
            *arguments,
        ]
        spawn.spawn(argv, self.pid_file("holder"), self.log_file("holder"))

    def wait_held(self) -> None:
        """Raises LabError when the holder does not get ready."""

        def ready() -> bool:
            if self.service("holder") is None:
                raise LabError(f"cannot make node {self.name}: {spawn.last_line(self.log_file('holder'))}")
            return (self.run_dir / ".ready").exists()

        wait_for(f"node {self.name} to be made", ready, 10, 0.005)

    def _make_folders(self) -> list[str]:
        for name in _RUN_FOLDERS:
            (self.run_dir / name).mkdir(parents=True, exist_ok=True)
        private = _private(self.spec)
        self.var_dir.mkdir(parents=True, exist_ok=True)
        for name in private:
            (self.var_dir / name).mkdir(parents=True, exist_ok=True)
        pairs = [
            (str(self.var_dir / name), mount_point) for name, mount_point in {**NAMES, **private}.items()
        ]
        return [word for pair in pairs for word in pair]


def _private(spec: Spec) -> dict[str, str]:
    if spec.machine:
        return {}
    if spec.kind == "host":
        return PRIVATE
    frr = FRR_PRIVATE if spec.frr else {}
    return frr | (CONTROLLER_PRIVATE if spec.controller is not None else {})


def _without_entering(message: str) -> str:
    head, found, tail = message.partition('exec "$@" ')
    return f"'{tail.partition(' ')[2]}" if found and head.startswith("'nsenter") else message
