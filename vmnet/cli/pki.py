"""vmnet pki: certificates for the daemons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vmnet.pki import CertificateInfo

_DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.group()
def pki() -> None:
    """Create and show the certificates by which the daemons know each other."""


@pki.command()
@click.argument("directory", type=_DIRECTORY)
@click.option(
    "--force", is_flag=True, help="Replace an existing CA; every host then needs a new certificate."
)
def init(directory: Path, force: bool) -> None:
    """Create a certificate authority in DIRECTORY. Keep ca.key there, away from the hosts."""
    from vmnet import pki as certificates

    _say(certificates.init(directory, force=force))
    click.echo(f"next: vmnet pki host NAME {directory}, for each host")


@pki.command()
@click.argument("name")
@click.argument("directory", type=_DIRECTORY)
@click.option(
    "--address", "addresses", multiple=True, metavar="IP", help="An address of the host; may be repeated."
)
@click.option("--force", is_flag=True, help="Replace the host's key and certificate.")
def host(name: str, directory: Path, addresses: tuple[str, ...], force: bool) -> None:
    """Create key and certificate of host NAME (its host.name) in DIRECTORY/NAME, with the CA in DIRECTORY."""
    from vmnet import pki as certificates

    _say(certificates.host(name, directory, addresses, force=force))
    click.echo(f"next: copy all of {directory / name}/ to /etc/vmnet/pki/ on {name}")


@pki.command()
@click.argument("directory", type=_DIRECTORY, default="/etc/vmnet/pki")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def show(directory: Path, as_json: bool) -> None:
    """Show the certificates in DIRECTORY (default /etc/vmnet/pki), with names and expiry."""
    from vmnet import pki as certificates

    found = list(certificates.show(directory))
    if as_json:
        click.echo(json.dumps([_fields(one) for one in found], indent=2))
        return
    for one in found:
        _say(one)


def _say(info: CertificateInfo) -> None:
    fields = _fields(info)
    left = int(str(fields["days_left"]))
    when = (
        f"expires {info.not_after:%Y-%m-%d}, in {left} days"
        if left >= 0
        else f"EXPIRED {info.not_after:%Y-%m-%d}"
    )
    click.echo(f"{info.path}: {info.subject} ({', '.join(info.names) or 'CA'}), {when}")


def _fields(info: CertificateInfo) -> dict[str, object]:
    from datetime import UTC, datetime

    return {
        "path": str(info.path),
        "subject": info.subject,
        "names": list(info.names),
        "ca": info.is_ca,
        "not_after": info.not_after.isoformat(),
        "days_left": info.days_left(datetime.now(UTC)),
    }
