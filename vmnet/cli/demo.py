"""``vmnet demo``: a VM under traffic migrates between two hosts on this machine, with vmnet and without."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import click

from vmnet.errors import ExitCode, LabError


class _Lazy(click.Group):
    """Imports ``follow`` only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["follow"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "follow":
            return None
        from vmnet.cli.demo_follow import follow

        return follow


@click.group(cls=_Lazy, invoke_without_command=True)
@click.pass_context
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default="vmnet-demo",
    show_default=True,
    help="Folder for pictures and what they were drawn from.",
)
@click.option("--lab-name", default="demo", show_default=True, help="How the labs' names begin.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def demo(context: click.Context, output: Path, lab_name: str, as_json: bool) -> None:
    """Migrate a VM three times under traffic in a lab of its own, and show what was lost.

    Takes everything down again. Exit code 8: a migration with vmnet lost something.
    """
    if context.invoked_subcommand is not None:
        return
    if os.geteuid() != 0:
        raise LabError("the demo needs root: it makes network namespaces", "run it with sudo")
    from vmnet.bench import machine
    from vmnet.demo import output as show
    from vmnet.demo.run import faults, play
    from vmnet.lab import accel, image

    began = time.monotonic()

    def tell(line: str) -> None:
        click.echo(f"{time.monotonic() - began:5.1f} s  {line}", err=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    facts = machine.describe(accel.choose(image.ensure("small", tell)))
    tell("{cpus} CPUs, {os}, libvirt {libvirt}, QEMU {qemu} ({accel})".format(**facts))
    played = list(play(lab_name, folder, tell))
    pictures, without = show.try_draw(played, folder)
    wrong = faults(played)
    if as_json:
        click.echo(json.dumps(show.to_json(played, facts, pictures), indent=1))
    else:
        show.show(played)
        for note in [*show.notes(played), *(f"picture: {path}" for path in pictures), without]:
            if note:
                click.echo(note)
    for line in wrong:
        click.echo(f"vmnet: {line}", err=True)
    if wrong:
        sys.exit(ExitCode.NOT_CLEAN)
