"""``vmnet follow VM``."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmnet.cli import common

if TYPE_CHECKING:
    import ssl

    from controller_bridge.fabric import Fabric

_FABRIC = Path("/etc/vmnet/fabric.toml")


class _Number(click.FloatRange):
    """Finite: NaN is in every range of click's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


_ABOVE_0 = _Number(min=0, min_open=True)


@click.command()
@click.argument("vm")
@click.option(
    "--policy",
    type=click.Choice(["nearest", "load", "pack"]),
    default="nearest",
    show_default=True,
    help="Nearest to its clients; to the least loaded host; to the most loaded one with room, so that others get empty.",
)
@click.option(
    "--once/--watch", default=True, show_default=True, help="One look; or look again until interrupted."
)
@click.option(
    "--every",
    type=_Number(1, 86_400),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Between looks.",
)
@click.option("--dry-run", is_flag=True, help="Only say what should be, and why.")
@click.option(
    "--gain", type=_ABOVE_0, metavar="N", help="Hops (0.5) or percentage points (10) that a move has to gain."
)
@click.option("--pause", type=_Number(0), metavar="S", help="Between two moves (60).")
@click.option("--cpu-most", type=_Number(0), metavar="PERCENT", help="That a host's CPUs may get busy (85).")
@click.option("--memory-spare", type=click.IntRange(0), metavar="MIB", help="That a host has to keep (256).")
@click.option(
    "--window",
    type=_Number(0.1, 60),
    default=2.0,
    show_default=True,
    metavar="S",
    help="So long the VM's traffic is looked at.",
)
@click.option(
    "--fabric",
    "file",
    type=click.Path(path_type=Path),
    envvar="VMNET_FABRIC",
    help=f"Switches, links, and where hosts are; load and pack do without.  [default: {_FABRIC}]",
)
@click.option(
    "--pki",
    type=click.Path(path_type=Path),
    default=Path("/etc/vmnet/pki"),
    show_default=True,
    help="ca.pem, host.pem and host.key, for switches at ssl: addresses.",
)
@common.json_option
@common.socket_option
def follow(
    vm: str,
    policy: str,
    once: bool,
    every: float,
    dry_run: bool,
    gain: float | None,
    pause: float | None,
    cpu_most: float | None,
    memory_spare: int | None,
    window: float,
    file: Path | None,
    pki: Path,
    as_json: bool,
    socket: Path,
) -> None:
    """Move VM from this host to where it should run, if that is elsewhere: nearest to those it speaks with, or by load.

    With --watch on every host, whichever has the VM acts. Exit codes: 0 stays, or has moved; 4 nobody knows the VM; 6 it is at another
    host, or the migration is refused; 130 interrupted; others as of `vmnet migrate`.
    """
    from controller_bridge.follow.facts import MIB, Limits
    from controller_bridge.follow.look import Scene
    from controller_bridge.follow.rating import Policy
    from vmnet.cli.following import Follower
    from vmnet.cli.interrupts import Interrupts

    asked: dict[str, Any] = {
        "gain_hops": gain,
        "gain_percent": gain,
        "pause_s": pause,
        "cpu_most_percent": cpu_most,
        "memory_spare_bytes": None if memory_spare is None else memory_spare * MIB,
    }
    limits = Limits(**{name: value for name, value in asked.items() if value is not None})
    needed = policy == Policy.NEAREST.value
    fabric = _fabric(file, needed)
    scene = Scene(str(socket), vm, window, fabric, _tls(fabric, pki), needed)
    with Interrupts() as interrupts:
        follower = Follower(scene, Policy(policy), limits, dry_run, as_json, interrupts)
        if once:
            sys.exit(follower.once())
        follower.watch(every)


def _fabric(file: Path | None, needed: bool) -> Fabric | None:
    from controller_bridge import fabric

    if file is None and not needed and not _FABRIC.exists():
        return None
    return fabric.read(file or _FABRIC)


def _tls(fabric: Fabric | None, pki: Path) -> ssl.SSLContext | None:
    """Open vSwitch 3.1 speaks TLS 1.2."""
    if fabric is None or not any(one.kind == "ssl" for one in fabric.switches.values()):
        return None
    import ssl

    from vmnet.config.model import Tls
    from vmnet.peer.identity import client_context

    context = client_context(Tls(pki / "ca.pem", pki / "host.pem", pki / "host.key"))
    assert context is not None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
