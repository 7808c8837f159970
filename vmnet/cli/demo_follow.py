"""``vmnet demo follow``: a game's VM follows a player to another building, on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import click

from vmnet.errors import ExitCode, LabError


@click.command(short_help="A VM follows a player to another building.")
@click.option(
    "--seconds",
    type=click.IntRange(3, 600),
    default=15,
    show_default=True,
    help="Of play before a client walks, before the VM moves, and after.",
)
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw round trips and hops as FILE.png."
)
@click.option("--lab-name", default="demo-follow", show_default=True, help="What the lab is called.")
@click.option("--keep", is_flag=True, help="Leave the lab up.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def follow(seconds: int, plot: Path | None, lab_name: str, keep: bool, as_json: bool) -> None:
    """A game with a player at each of three clients; one walks to the other building, and `vmnet follow` moves the VM after it.

    Takes everything down again. Exit code 8: a player was disconnected, or the VM did not come nearer.
    """
    if os.geteuid() != 0:
        raise LabError("the demo needs root: it makes network namespaces", "run it with sudo")
    if plot is not None:
        from vmnet.report import follow_plots, style

        style.pyplot()  # now: what is missing is to be said before it takes minutes
    from vmnet.bench import machine
    from vmnet.demo import follow as demo
    from vmnet.demo import follow_output
    from vmnet.lab import accel, image

    began = time.monotonic()

    def tell(line: str) -> None:
        click.echo(f"{time.monotonic() - began:5.1f} s  {line}", err=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    facts = machine.describe(accel.choose(image.ensure("small", tell)))
    tell("{cpus} CPUs, {os}, Open vSwitch {openvswitch}, QEMU {qemu} ({accel})".format(**facts))
    found = follow_output.document(demo.play(lab_name, seconds, keep, tell), facts)
    if as_json:
        click.echo(json.dumps(found))
    else:
        follow_output.show(found)
        click.echo(follow_output.NOTE)
    if plot is not None:
        follow_plots.draw(plot, found)
        click.echo(f"picture: {plot}", err=True)
    for line in found["faults"]:
        click.echo(f"vmnet: {line}", err=True)
    if found["faults"]:
        sys.exit(ExitCode.NOT_CLEAN)
