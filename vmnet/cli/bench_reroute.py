"""``vmnet bench reroute``: how fast flows change their path."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import click

from vmnet.cli.bench_pisa import number


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True, help="Where the rows go.")
@click.option("--plot", "plots", type=click.Path(path_type=Path), help="Folder for a picture.")
@click.option(
    "--flows", default="1,10,100,1000,10000,100000", show_default=True, help="How many flows move at once."
)
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Of each case.")
@click.option(
    "--rate",
    type=click.IntRange(0, 200_000),
    default=10_000,
    show_default=True,
    help="Packets a second; 0: none.",
)
@click.option(
    "--packets-up-to",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Flows beside which packets are sent.",
)
@click.option(
    "--schemes", default="vmnet,ovs-ofctl,os-ken", show_default=True, help="Who tells the switches."
)
@click.option("--lab-name", default="reroute-bench", show_default=True, help="Of the bench's lab.")
def reroute(
    file: Path,
    plots: Path | None,
    flows: str,
    runs: int,
    rate: int,
    packets_up_to: int,
    schemes: str,
    lab_name: str,
) -> None:
    """Move flows from one path of three switches to another, and count what is lost meanwhile.

    Interrupting leaves a valid file with the rows so far.
    """
    from vmnet.bench import machine, reroute, reroute_output
    from vmnet.bench.progress import shown
    from vmnet.bench.reroute_rivals import has_osken
    from vmnet.bench.reroute_stage import stage

    if unknown := set(schemes.split(",")) - set(reroute.SCHEMES):
        raise click.BadParameter(f"no scheme {', '.join(sorted(unknown))}", param_hint="--schemes")
    if "os-ken" in schemes and not has_osken():
        click.echo("os-ken is not installed: it is left out (pip install os-ken)", err=True)
    counts = [number(word, 1, 100_000, "--flows") for word in flows.split(",")]
    settings = reroute.Settings(schemes.split(","), counts, rate, runs, packets_up_to)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    facts, todo = machine.describe("none"), reroute.steps(settings)
    with (
        asyncio.Runner() as runner,
        stage(lab_name, runner, "os-ken" in schemes) as place,
        shown(len(todo), reroute_output.describe) as tell,
    ):
        bench = reroute.Bench(place, runner)
        for one in todo:
            row = bench.step(one)
            reroute.write(file, facts, bench.rows)
            tell(row)
    reroute_output.show(bench.rows)
    if plots:
        click.echo(f"drew {reroute_output.draw(plots, bench.rows)}", err=True)
