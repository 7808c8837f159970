"""FRR in a node of the lab: Debian's daemons, each a recorded process, with files of the node's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from vmnet.errors import LabError
from vmnet.lab import announce
from vmnet.lab.command import run
from vmnet.lab.frr_programs import PROGRAMS, USER, installed, with_manager
from vmnet.lab.node import Node
from vmnet.lab.spawn import last_line
from vmnet.lab.topology import Frr
from vmnet.lab.wait import wait_for

_START_S = 10.0
_CONFIG_S = 60.0


def start(nodes: Iterable[Node]) -> list[str]:
    """Start FRR in every node that has it, side by side; names of those nodes.

    Raises LabError when FRR is missing, does not start or refuses its configuration.
    """
    wanted = [(node, node.spec.frr) for node in nodes if node.spec.frr]
    for node, frr in wanted:
        _write_files(node, frr)
        _announce(node, frr)
        _start_daemons(node, frr)
    for node, frr in wanted:
        wait_sockets(node, with_manager(frr.daemons))
        node.run(["vtysh", "-b"], timeout=_CONFIG_S)
    return [node.name for node, _ in wanted]


def start_daemon(node: Node, daemon: str) -> None:
    """Start one daemon; its configuration comes from ``vtysh -b``."""
    more = ["-M", "dplane_fpm_nl"] if daemon == "zebra" and _wants_fpm(node) else []
    node.spawn(daemon, [str(PROGRAMS / daemon), "-u", USER, "-g", USER, "-A", "127.0.0.1", *more])


def wait_sockets(node: Node, daemons: Iterable[str]) -> None:
    """Until vtysh can talk to the daemons. Raises LabError when one ends or does not get there."""
    for daemon in daemons:

        def listens(daemon: str = daemon) -> bool:
            if node.service(daemon) is None:
                ends = last_line(node.log_file(daemon))
                raise LabError(f"{daemon} on {node.name} ended", f"its log ends: {ends}")
            return (node.run_dir / "frr" / f"{daemon}.vty").exists()

        wait_for(f"{daemon} on {node.name} to listen", listens, _START_S, 0.005)


def _wants_fpm(node: Node) -> bool:
    return node.spec.frr is not None and "fpm address" in node.spec.frr.config


def _write_files(node: Node, frr: Frr) -> None:
    if not installed() or shutil.which("vtysh") is None:
        raise LabError("FRR is not installed", "apt-get install frr")
    etc = node.var_dir / "etc-frr"
    (etc / "vtysh.conf").write_text("service integrated-vtysh-config\n")
    (etc / "frr.conf").write_text(frr.config)
    (node.var_dir / "var-tmp").chmod(0o1777)
    sockets = node.run_dir / "frr"
    sockets.mkdir(exist_ok=True)
    for path in (etc, *etc.iterdir(), sockets, node.var_dir / "lib-frr"):
        shutil.chown(path, USER, USER)


def _announce(node: Node, frr: Frr) -> None:
    for family, lines in (
        ("-4", announce.ipv4_lines(frr.announce_ipv4)),
        ("-6", announce.ipv6_lines(frr.announce_ipv6)),
    ):
        if lines:
            run(["ip", "-n", node.netns_name, family, "-batch", "-"], text="\n".join(lines) + "\n")


def _start_daemons(node: Node, frr: Frr) -> None:
    """The first ones listen before the others start: those connect to them."""
    first = with_manager(["zebra"])
    for daemon in first:
        start_daemon(node, daemon)
        wait_sockets(node, [daemon])
    for daemon in frr.daemons:
        if daemon not in first:
            start_daemon(node, daemon)
