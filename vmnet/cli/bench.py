"""``vmnet bench``: experiments whose results are a file, a table and pictures."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmnet.cli.bench_controller import controller
from vmnet.cli.bench_forward import forward
from vmnet.cli.bench_pisa import pisa
from vmnet.cli.bench_reroute import reroute

if TYPE_CHECKING:
    from vmnet.bench.vm import Settings


@click.group()
def bench() -> None:
    """Measure migrations in labs of their own."""


bench.add_command(pisa)
bench.add_command(forward)
bench.add_command(reroute)
bench.add_command(controller)


@bench.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True, help="Where the rows go.")
@click.option("--plot", "plots", type=click.Path(path_type=Path), help="Folder for pictures.")
@click.option(
    "--runs", type=click.IntRange(1), default=10, show_default=True, help="Migrations of each case."
)
@click.option(
    "--controls", type=click.IntRange(0), default=3, show_default=True, help="Runs without a migration."
)
@click.option("--rates", default="100,1000,10000", show_default=True, help="Packets a second, each way.")
@click.option(
    "--schemes",
    default="libvirt-bridge,libvirt-ovs,vmnet-virsh,vmnet",
    show_default=True,
    help="What to compare.",
)
@click.option(
    "--guests", default="idle,dirty", show_default=True, help="Guests that do nothing or dirty memory."
)
@click.option(
    "--dirty", default="32:4000", show_default=True, metavar="MIB:PAGES", help="How dirty guests dirty."
)
@click.option(
    "--memory", type=click.IntRange(64, 65536), metavar="MIB", help="Of the VM; else as the topology says."
)
@click.option(
    "--size", type=int, default=64, show_default=True, help="Bytes of an Ethernet frame without FCS."
)
@click.option("--lab-name", default="bench", show_default=True, help="How the labs' names begin.")
@click.option("--keep", is_flag=True, help="Leave the labs up.")
@click.option("--resume", is_flag=True, help="Keep the file's good rows, do what is missing.")
def vm(file: Path, plots: Path | None, lab_name: str, keep: bool, resume: bool, **how: Any) -> None:
    """Migrate a VM to and fro under traffic, one scheme after another.

    Interrupting leaves a valid file with the rows so far; --resume goes on from there.
    """
    from vmnet.bench import output
    from vmnet.bench.vm import remaining

    settings = _settings(plots, how)
    done = output.read_rows(file) if resume else []
    todo = remaining(settings, done)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows = _measure(file, settings, lab_name, keep, done) if todo else done
    output.show(rows)
    if plots:
        _draw(plots, rows)


@bench.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True, help="Where the rows go.")
@click.option("--plot", "plots", type=click.Path(path_type=Path), help="Folder for a picture.")
@click.option(
    "--routes", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True, help="Routes of FRR."
)
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Of each case.")
@click.option(
    "--million/--no-million", default=True, show_default=True, help="One more run with a million routes."
)
def fib(file: Path, plots: Path | None, routes: int, runs: int, million: bool) -> None:
    """Copy a router's table from FRR into a kernel, clone it, sweep it.

    Interrupting leaves a valid file with the rows so far.
    """
    from vmnet.bench import fib as bench_
    from vmnet.bench import fib_output, machine

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    facts = machine.describe("none")
    rows: list[bench_.FibRow] = []
    with fib_output.shown((runs + million) * len(bench_.CASES)) as (tell, stage):

        def after(row: bench_.FibRow) -> None:
            rows.append(row)
            bench_.write(file, facts, rows)
            tell(row)

        bench_.run(routes, runs, million, after, stage)
    fib_output.show(rows)
    if plots:
        click.echo(f"drew {fib_output.draw(plots, rows)}", err=True)


def _settings(plots: Path | None, how: dict[str, Any]) -> Settings:
    """Raises ConfigError for a scheme that there is not."""
    from vmnet.bench.schemes import find
    from vmnet.bench.vm import Settings

    return Settings(
        schemes=[s.name for s in find(how["schemes"].split(","))],
        rates=[_rate(word) for word in how["rates"].split(",")],
        guests=[_guest(word) for word in how["guests"].split(",")],
        runs=how["runs"],
        controls=how["controls"],
        size_bytes=how["size"],
        dirty=how["dirty"],
        memory_mib=how["memory"],
        timelines=plots,
    )


def _rate(word: str) -> int:
    if not word.isdigit() or not 1 <= int(word) <= 200_000:
        raise click.BadParameter(f"{word} is no rate", param_hint="--rates")
    return int(word)


def _guest(word: str) -> str:
    if word not in ("idle", "dirty"):
        raise click.BadParameter(f"{word} is neither idle nor dirty", param_hint="--guests")
    return word


def _measure(file: Path, settings: Settings, lab_name: str, keep: bool, done: list[Any]) -> list[Any]:
    from vmnet.bench import machine, output
    from vmnet.bench.progress import shown
    from vmnet.bench.schemes import find
    from vmnet.bench.stage import stage
    from vmnet.bench.vm import Bench, remaining, run
    from vmnet.lab import accel, image

    todo = remaining(settings, done)
    facts = machine.describe(accel.choose(image.ensure("small")))
    facts["guest"] = {"memory_mib": settings.memory_mib, "dirty": settings.dirty}
    schemes = find(list(settings.schemes))
    with stage(lab_name, schemes, keep, settings.memory_mib) as ready, shown(len(todo)) as tell:
        bench_ = Bench(settings, ready, done)

        def after(row: Any) -> None:
            output.write(file, facts, bench_.rows)
            tell(row)

        run(bench_, todo, after)
    return bench_.rows


def _draw(folder: Path, rows: list[Any]) -> None:
    from vmnet.report import bench_plots, events, timeline

    drawn = bench_plots.draw_all(folder, [row.to_json() for row in rows])
    for file in sorted(folder.glob("timeline-*.jsonl")):
        found = events.load(file)
        packets = next((e for e in found if e["event"] == "timeline"), None)
        drawn.append(file.with_suffix(".png"))
        timeline.draw(drawn[-1], found, packets, file.stem.removeprefix("timeline-").replace("-", " "))
    for path in drawn:
        click.echo(f"drew {path}", err=True)
