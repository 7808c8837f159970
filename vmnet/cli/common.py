"""What several commands share: the daemon's socket, and JSON output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vmnet.control import ControlClient
from vmnet.control_socket import DEFAULT_SOCKET, SOCKET_VARIABLE

Command = TypeVar("Command", bound=Callable[..., Any])


def socket_option(command: Command) -> Command:
    return click.option(
        "--socket",
        type=click.Path(path_type=Path),
        default=Path(DEFAULT_SOCKET),
        show_default=True,
        envvar=SOCKET_VARIABLE,
        help="The daemon's control socket.",
    )(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="For machines: one JSON object a line.")(
        command
    )


def allow_unprotected_option(command: Command) -> Command:
    return click.option(
        "--allow-unprotected",
        is_flag=True,
        help="Let interfaces without a tap on a bridge (macvtap, passed-through cards, ...) lose packets.",
    )(command)


def client(socket: Path) -> ControlClient:
    return ControlClient(socket)


def print_json(value: object) -> None:
    click.echo(json.dumps(value))
