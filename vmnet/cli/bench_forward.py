"""``vmnet bench forward``: what forwarding costs."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from vmnet.cli.bench_pisa import number


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True, help="Where the rows go.")
@click.option("--plot", "plots", type=click.Path(path_type=Path), help="Folder for pictures.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Runs of each case.")
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Of one run.")
@click.option("--sizes", default="64,1500", show_default=True, help="Bytes of an IP packet.")
@click.option(
    "--paths",
    default="ours,plain,vm",
    show_default=True,
    help="A router's data plane, the kernel alone, the VM itself.",
)
@click.option("--lab-name", default="forward-bench", show_default=True, help="Of the VM's lab.")
def forward(
    file: Path, plots: Path | None, rounds: int, seconds: float, sizes: str, paths: str, lab_name: str
) -> None:
    """How many packets a second a router forwards: its data plane on the host, the kernel without us, the VM itself."""
    from vmnet.bench import forward, machine
    from vmnet.bench.forward_rows import PATHS, Row, order
    from vmnet.bench.progress import shown
    from vmnet.lab import accel, image

    if unknown := set(paths.split(",")) - set(PATHS):
        raise click.BadParameter(f"no path {', '.join(sorted(unknown))}", param_hint="--paths")
    settings = forward.Settings(
        paths=paths.split(","),
        sizes=[number(word, 64, 1500, "--sizes") for word in sizes.split(",")],
        rounds=rounds,
        seconds=seconds,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    facts = machine.describe(accel.choose(image.ensure("small")) if "vm" in settings.paths else "none")
    total = len(order(settings.sizes, settings.versions, settings.paths, rounds))
    with forward.stage(settings, lab_name) as bench, shown(total, forward.describe) as tell:

        def after(row: Row) -> None:
            forward.write(file, facts, bench.rows)
            tell(row)

        forward.run(bench, settings, after)
    forward.show(bench.rows)
    if plots:
        from vmnet.report import forward_plots

        click.echo(f"drew {forward_plots.draw(plots, [row.to_json() for row in bench.rows])}", err=True)
