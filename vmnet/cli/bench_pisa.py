"""``vmnet bench pisa``: migrating routers, as Pisa 2010 did."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vmnet.bench.pisa import Settings
    from vmnet.bench.pisa_rows import Row

QUICK = {"runs": 1, "fewer": 1, "rates": "1000,100000", "sizes": "64"}


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), required=True, help="Where the rows go.")
@click.option("--plot", "plots", type=click.Path(path_type=Path), help="Folder for pictures.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Migrations of each case.")
@click.option(
    "--fewer",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Migrations of separation-virsh, each case.",
)
@click.option(
    "--controls", type=click.IntRange(0), default=1, show_default=True, help="Runs without a migration."
)
@click.option(
    "--rates", default="100,1000,10000,20000,100000", show_default=True, help="Data packets a second."
)
@click.option("--sizes", default="64,1500", show_default=True, help="Bytes of an IP packet.")
@click.option(
    "--schemes",
    default="standard,separation,separation-virsh,openflow",
    show_default=True,
    help="What to compare.",
)
@click.option("--ipv6", is_flag=True, help="Both meters use IPv6.")
@click.option(
    "--quick", is_flag=True, help="A look: one run, 64 bytes, 1000 and 100,000 packets/s; two minutes."
)
@click.option("--lab-name", default="pisa-bench", show_default=True, help="How the labs' names begin.")
@click.option("--keep", is_flag=True, help="Leave the labs up.")
@click.option("--resume", is_flag=True, help="Keep the file's good rows, do what is missing.")
def pisa(
    file: Path, plots: Path | None, lab_name: str, keep: bool, resume: bool, quick: bool, **how: Any
) -> None:
    """Migrate a router VM to and fro while data flows through it.

    With the VM forwarding (standard), with its host forwarding (separation), and without a VM, flows moving from switch to switch
    (openflow). Interrupting leaves a valid file with the rows so far; --resume goes on from there.
    """
    from vmnet.bench import pisa_output
    from vmnet.bench.pisa import remaining

    settings = _settings({**how, **QUICK} if quick else how)
    done = pisa_output.read_rows(file) if resume else []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    known = pisa_output.read_machine(file) if resume else {}
    rows = _measure(file, settings, lab_name, keep, done, known) if remaining(settings, done) else done
    pisa_output.show(rows)
    if plots:
        from vmnet.report import pisa_plots

        for path in pisa_plots.draw_all(plots, [row.to_json() for row in rows]):
            click.echo(f"drew {path}", err=True)


def _settings(how: dict[str, Any]) -> Settings:
    """Raises ConfigError for a scheme that there is not."""
    from vmnet.bench.pisa import Settings
    from vmnet.bench.pisa_schemes import find

    return Settings(
        schemes=[one.name for one in find(how["schemes"].split(","))],
        rates=[number(word, 1, 400_000, "--rates") for word in how["rates"].split(",")],
        sizes=[number(word, 64, 1500, "--sizes") for word in how["sizes"].split(",")],
        runs=how["runs"],
        fewer=how["fewer"],
        controls=how["controls"],
        ip_version=6 if how["ipv6"] else 4,
    )


def number(word: str, least: int, most: int, option: str) -> int:
    if not (word.isascii() and word.isdigit() and least <= int(word) <= most):
        raise click.BadParameter(f"{word} is not from {least} to {most}", param_hint=option)
    return int(word)


def _measure(
    file: Path, settings: Settings, lab_name: str, keep: bool, done: list[Row], known: dict[str, Any]
) -> list[Row]:
    """``known``: of the machine, when earlier rows were measured."""
    from vmnet.bench import machine, pisa_output
    from vmnet.bench.pisa import Bench, remaining
    from vmnet.bench.pisa_schemes import RouterScheme, find
    from vmnet.bench.pisa_stands import stands
    from vmnet.bench.progress import shown
    from vmnet.lab import accel, image

    todo = remaining(settings, done)
    schemes = find(list(settings.schemes))
    boots = any(isinstance(one, RouterScheme) for one in schemes)
    facts = machine.describe(accel.choose(image.ensure("small")) if boots else known.get("accel", "none"))
    with (
        stands(lab_name, schemes, keep) as places,
        shown(len(todo), pisa_output.describe) as tell,
    ):
        bench = Bench(places, done)
        for step in todo:
            row = bench.step(step)
            pisa_output.write(file, facts, bench.rows)
            tell(row)
    return bench.rows
