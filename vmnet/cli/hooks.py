"""vmnet hooks: put the libvirt hooks in place, show them, remove them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from hooks.install import HookChange, HookStatus

RELOAD = "libvirt has not noticed it: systemctl try-reload-or-restart libvirtd (or virtqemud; guests are not touched)"


def _options(command: Callable[..., None]) -> Callable[..., None]:
    folder = click.Path(path_type=Path, file_okay=False)
    command = click.option("--json", "as_json", is_flag=True, help="For machines.")(command)
    return click.option(
        "--etc-libvirt",
        type=folder,
        default="/etc/libvirt",
        show_default=True,
        help="libvirt's configuration.",
    )(command)


@click.group()
def hooks() -> None:
    """Install the hooks by which libvirt tells vmnet of migrations."""


@hooks.command()
@_options
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="Default: /etc/vmnet/vmnet.toml."
)
@click.option("--python", metavar="PATH", help="The Python that runs the hook; default: /usr/bin/python3.")
@click.option("--force", is_flag=True, help="Replace a hook of ours that was changed by hand.")
def install(
    etc_libvirt: Path, as_json: bool, config_path: Path | None, python: str | None, force: bool
) -> None:
    """Install or update the hooks, with the settings of [hooks] and [daemon]. Other hooks keep working."""
    from hooks import install as installer
    from vmnet.config import load

    config = load(config_path)
    changes = installer.install(
        etc_libvirt,
        python,
        socket_path=str(config.daemon.socket),
        when_daemon_away=config.hooks.when_daemon_away,
        timeout_ms=config.hooks.timeout_ms,
        force=force,
    )
    _report(as_json, changes, installer.status(etc_libvirt))


@hooks.command()
@_options
def status(etc_libvirt: Path, as_json: bool) -> None:
    """Show which hooks are installed, with which settings, and whether libvirt knows of them."""
    from hooks import install as installer

    _report(as_json, [], installer.status(etc_libvirt))


@hooks.command()
@_options
def uninstall(etc_libvirt: Path, as_json: bool) -> None:
    """Remove exactly what `install` put there."""
    from hooks import install as installer

    _report(as_json, installer.uninstall(etc_libvirt), [])


def _report(as_json: bool, changes: list[HookChange], found: list[HookStatus]) -> None:
    if as_json:
        click.echo(json.dumps({"changes": _plain(changes), "hooks": _plain(found)}, indent=2))
        return
    for change in changes:
        click.echo(f"{change.path}: {change.action}{change.note and ', ' + change.note}")
    for one in found:
        if not changes:
            click.echo(f"{one.path}: {_describe(one)}")
        if one.reload_needed:
            click.echo(f"{one.path}: {RELOAD}")


def _plain(items: list[Any]) -> list[dict[str, Any]]:
    return [{key: str(v) if isinstance(v, Path) else v for key, v in asdict(one).items()} for one in items]


def _describe(one: HookStatus) -> str:
    parts = [one.state, *(f"{key} {value}" for key, value in one.settings)]
    if one.version:
        parts.insert(1, f"version {one.version}")
    if one.others:
        parts.append(f"beside {', '.join(one.others)}")
    return ", ".join(parts)
