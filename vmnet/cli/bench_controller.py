"""``vmnet bench controller``: packet-ins answered."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from vmnet.cli.bench_pisa import number


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True, help="Where the rows go.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Of each case.")
@click.option("--switches", default="1,16,64", show_default=True, help="Emulated switches.")
@click.option(
    "--window",
    type=click.IntRange(2, 1000),
    default=64,
    show_default=True,
    help="Questions each has under way.",
)
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=3.0, show_default=True, help="Of one run.")
@click.option("--schemes", default="vmnet,os-ken,asyncio", show_default=True, help="Controllers.")
def controller(file: Path, runs: int, switches: str, window: int, seconds: float, schemes: str) -> None:
    """How many packet-ins a second vmnet's controller answers, beside os-ken's and as little as asyncio can do."""
    from vmnet.bench import controller, machine
    from vmnet.bench.progress import shown

    if unknown := set(schemes.split(",")) - set(controller.SCHEMES):
        raise click.BadParameter(f"no controller {', '.join(sorted(unknown))}", param_hint="--schemes")
    counts = [number(word, 1, 1000, "--switches") for word in switches.split(",")]
    todo = [
        (case, run) for run in range(runs) for case in controller.cases(schemes.split(","), counts, window)
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    facts = machine.describe("none")
    found: list[controller.Row] = []
    with shown(len(todo), controller.describe) as tell:
        for case, run in todo:
            found.append(controller.measure(case, run, seconds))
            controller.write(file, facts, found)
            tell(found[-1])
    controller.show(found)
