"""``vmnet``: commands are loaded when they are used, so that help and a refusal come at once."""

from __future__ import annotations

import importlib
import sys

import click

from vmnet.errors import VmnetError

COMMANDS: dict[str, tuple[str, str, str]] = {
    "migrate": (
        "vmnet.cli.migrate",
        "migrate",
        "Move a running VM to another host; the network notices nothing.",
    ),
    "plan": ("vmnet.cli.plan", "plan", "Say what a migration would do, or why it cannot be."),
    "follow": (
        "vmnet.cli.follow",
        "follow",
        "Move a VM to where it should run: near its clients, or by load.",
    ),
    "status": ("vmnet.cli.status", "status", "Migrations under way, past ones, and where VMs are bound."),
    "abort": ("vmnet.cli.abort", "abort", "Stop a migration and put everything back."),
    "doctor": ("vmnet.cli.doctor", "doctor", "Is this host fit for migrations?"),
    "probe": ("vmnet.cli.probe", "probe", "Measure loss, order, gaps and latency to a VM."),
    "router": ("vmnet.cli.router", "router", "Virtual routers that never stop forwarding."),
    "flows": ("vmnet.cli.flows", "flows", "Paths of flows over OpenFlow switches, and other paths for them."),
    "controller": (
        "vmnet.cli.controller",
        "controller",
        "What our own controller of an OpenFlow fabric knows.",
    ),
    "hooks": ("vmnet.cli.hooks", "hooks", "Install libvirt's hooks, or see or remove them."),
    "pki": ("vmnet.cli.pki", "pki", "A small CA for the hosts' daemons."),
    "demo": (
        "vmnet.cli.demo",
        "demo",
        "Three migrations under traffic on this machine, and what they lost; or a VM that follows.",
    ),
    "lab": ("vmnet.cli.lab", "lab", "Hosts, switches and VMs on this one machine, to try it all."),
    "bench": ("vmnet.cli.bench", "bench", "Measure migrations, with vmnet and without."),
}


class LazyGroup(click.Group):
    """Imports a command's module only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = COMMANDS.get(cmd_name)
        if found is None:
            return None
        module, name, _help = found
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_module, _attribute, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vmnet")
def cli() -> None:
    """Live migration of virtual machines without the network noticing."""


def main() -> None:
    """Run; a VmnetError becomes one line on stderr and its exit code."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except VmnetError as error:
        click.echo(f"vmnet: {error}", err=True)
        sys.exit(int(error.code))


if __name__ == "__main__":
    main()
