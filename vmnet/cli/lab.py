"""``vmnet lab``: two hosts, a client and the wires between them on one machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from vmnet.errors import NotFoundError, VmnetError

if TYPE_CHECKING:
    from vmnet.lab.node import Node

_LAB_OPTION = click.option(
    "--lab", "name", envvar="VMNET_LAB", help="Which lab; not needed when there is only one."
)


@click.group()
def lab() -> None:
    """Hosts as network namespaces, with real libvirtd and QEMU (needs root)."""


@lab.command()
@click.argument("source", metavar="[NAME|FILE]", default="pair")
@click.option("--name", help="Name of the lab; default: the topology's.")
@click.option("--no-vm", is_flag=True, help="Boot no VM.")
@click.option(
    "--hooks/--no-hooks", default=None, help="Install our libvirt hooks; default: as the topology says."
)
@click.option(
    "--daemon/--no-daemon",
    default=None,
    help="Start vmnet-dom0d, and vmnet-controllerd where the topology has it; default: as the topology says.",
)
@click.option("--keep-failed", is_flag=True, help="Leave a lab that failed to come up, for a look at it.")
@click.option("--json", "as_json", is_flag=True, help="Print the state as JSON.")
def up(
    source: str,
    name: str | None,
    no_vm: bool,
    hooks: bool | None,
    daemon: bool | None,
    keep_failed: bool,
    as_json: bool,
) -> None:
    """Bring up a built-in topology or one from a file. Heals a dead lab; leaves a healthy one alone."""
    from vmnet.lab import status
    from vmnet.lab.up import Options
    from vmnet.lab.up import up as bring_up

    options = Options(name, not no_vm, hooks, daemon, keep_failed)
    made, changed = bring_up(source, options, lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps({**status.report(made), "changed": changed}, indent=2))
    else:
        click.echo(f"lab '{made.name}' is up" if changed else f"lab '{made.name}' is up already")


@lab.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Take down every lab of this machine.")
def down(name: str | None, every: bool) -> None:
    """Take a lab down, whatever state it is in."""
    from vmnet.lab import down as module
    from vmnet.lab.paths import check_name, known_labs

    for each in known_labs() if every else [check_name(name or _only_lab())]:
        click.echo(f"lab '{each}' is down" if module.down(each) else f"there is no lab '{each}'")


@lab.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(name: str | None, as_json: bool) -> None:
    """Show what of a lab is alive."""
    from vmnet.lab import status as module
    from vmnet.lab.lab import Lab

    facts = module.report(Lab.load(name or _only_lab()))
    click.echo(json.dumps(facts, indent=2) if as_json else _as_text(facts))


@lab.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def list_(as_json: bool) -> None:
    """List labs that exist and the built-in topologies."""
    from vmnet.lab.paths import known_labs
    from vmnet.lab.schema import built_in_names

    facts = {"labs": known_labs(), "topologies": built_in_names()}
    text = f"labs: {', '.join(facts['labs']) or 'none'}\ntopologies: {', '.join(facts['topologies'])}"
    click.echo(json.dumps(facts) if as_json else text)


@lab.command()
@_LAB_OPTION
@click.argument("client", metavar="CLIENT")
@click.argument("port", metavar="PORT")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def move(name: str | None, client: str, port: str, as_json: bool) -> None:
    """Plug a mobile client in elsewhere: `vmnet lab move c1 s5:room3`, or at any free port: `vmnet lab move c1 s5`."""
    from dataclasses import asdict

    from vmnet.lab.move import move as carry_out

    done = carry_out(name or _only_lab(), client, port)
    if as_json:
        click.echo(json.dumps(asdict(done)))
    elif done.changed:
        click.echo(
            f"{client} is at {done.target}, was at {done.source}; it had no link for {done.away_ms:g} ms"
        )
    else:
        click.echo(f"{client} is at {done.target} already")


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_LAB_OPTION
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str | None, node: str, command: tuple[str, ...]) -> None:
    """Run a command in a node: `vmnet lab exec a -- virsh list`."""
    from vmnet.lab.lab import Lab

    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("which command?")
    argv = _argv(Lab.load(name or _only_lab()).node(node), words)
    os.execvp(argv[0], argv)


def _argv(node: Node, words: Sequence[str]) -> list[str]:
    """A machine's terminal is one more program between ours and the command: only where somebody sits at ours."""
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return node.interactive_argv(words) if at_terminal else node.argv(words)


def _only_lab() -> str:
    """The one lab that exists. Raises NotFoundError when it is not exactly one."""
    from vmnet.lab.paths import known_labs

    names = known_labs()
    if len(names) != 1:
        raise NotFoundError(
            f"which lab? there are: {', '.join(names)}" if names else "no lab is up", "try 'vmnet lab list'"
        )
    return names[0]


def _as_text(facts: dict[str, Any]) -> str:
    lines = [f"lab {facts['name']} ({facts['topology']}): {facts['state']}"]
    for name, node in facts["nodes"].items():
        pids = ", ".join(f"{role} {pid or 'dead'}" for role, pid in node["pids"].items())
        at = f"  at {node['at']}" if "at" in node else ""
        lines.append(f"  {name:10} {node['kind']:7} {node['netns']}  {pids}{at}")
    for name, vm in facts["vms"].items():
        lines.append(
            f"  {name:10} VM      {'on ' + ', '.join(vm['hosts']) if vm['hosts'] else 'does not run'}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run this group alone, with one line for an error."""
    try:
        lab(prog_name="vmnet lab")
    except VmnetError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.code)


if __name__ == "__main__":
    main()
