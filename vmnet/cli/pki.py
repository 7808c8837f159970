"""vmnet pki: certificates for the daemons, for libvirt and for QEMU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmnet.pki import CertificateInfo
    from vmnet.pki_install import Placed

_DIRECTORY = click.Path(path_type=Path, file_okay=False)


def _install_options(command: Callable[..., None]) -> Callable[..., None]:
    """What `libvirt` and `qemu` share."""
    root = click.Path(path_type=Path, file_okay=False)
    command = click.option("--force", is_flag=True, help="Replace files that vmnet did not create.")(command)
    return click.option("--root", type=root, default="/", help="Install below this folder.", metavar="DIR")(
        command
    )


@click.group()
def pki() -> None:
    """Create, show and install the certificates by which vmnet, libvirt and QEMU authenticate hosts."""


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
    click.echo(
        f"next: copy all of {directory / name}/ to /etc/vmnet/pki/ on {name}; there: vmnet pki libvirt"
    )


@pki.command()
@click.argument("name")
@click.argument("directory", type=_DIRECTORY)
@click.option("--force", is_flag=True, help="Replace the switch's key and certificate.")
def switch(name: str, directory: Path, force: bool) -> None:
    """Create key and certificate of switch NAME in DIRECTORY/NAME, by which vmnet-controllerd knows it.

    NAME is that under [switches] in controller.toml, or the datapath identifier in 16 hexadecimal digits.
    """
    from vmnet import pki as certificates

    _say(certificates.switch(name, directory, force=force))
    files = " ".join(str(directory / name / file) for file in ("switch.key", "switch.pem", "ca.pem"))
    click.echo(f"next: copy them to the switch; there, with Open vSwitch: ovs-vsctl set-ssl {files}")


@pki.command()
@click.argument("name")
@click.argument("directory", type=_DIRECTORY)
def revoke(name: str, directory: Path) -> None:
    """Put the certificates of host or switch NAME on DIRECTORY/crl.pem, the list of those that are believed no more.

    Do it before `vmnet pki host NAME --force` replaces them.
    """
    from vmnet import pki_revoked

    path = pki_revoked.revoke(name, directory)
    click.echo(f"{path}: has the certificates of {name}")
    click.echo(
        "next: copy it to /etc/vmnet/pki/ on every host; there: vmnet pki libvirt, and restart libvirtd"
    )


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


@pki.command()
@click.argument("directory", type=_DIRECTORY, default="/etc/vmnet/pki")
@_install_options
def libvirt(directory: Path, root: Path, force: bool) -> None:
    """Copy the host's certificate in DIRECTORY (default /etc/vmnet/pki) to where libvirt looks for its TLS files.

    libvirt lets every host whose certificate is of this CA control this host.
    """
    from vmnet import pki_install

    _report(pki_install.place(directory, pki_install.LIBVIRT, root, force=force))


@pki.command()
@click.argument("directory", type=_DIRECTORY)
@_install_options
def qemu(directory: Path, root: Path, force: bool) -> None:
    """Copy a certificate to where QEMU looks for it: for `virsh migrate --tls`, which encrypts the VM's memory.

    DIRECTORY is a host's folder of a CA that is only for QEMU, because QEMU can read the key.
    """
    from vmnet import pki_install

    if not force:
        pki_install.refuse_shared_ca(directory, root)
    _report(pki_install.place(directory, pki_install.QEMU, root, force=force))


def _report(placed: list[Placed]) -> None:
    for file in placed:
        click.echo(f"{file.action:9} {file.path}")


def _say(info: CertificateInfo) -> None:
    fields = _fields(info)
    left = int(str(fields["days_left"]))
    when = (
        f"expires {info.not_after:%Y-%m-%d}, in {left} days"
        if left >= 0
        else f"EXPIRED {info.not_after:%Y-%m-%d}"
    )
    click.echo(f"{info.path}: {info.subject} ({', '.join(info.names) or 'CA'}), {when}")
    if info.missing:
        from vmnet.pki import RENEW

        click.echo(f"  does not permit {' and '.join(info.missing)}, which libvirt needs; {RENEW}")


def _fields(info: CertificateInfo) -> dict[str, object]:
    from datetime import UTC, datetime

    return {
        "path": str(info.path),
        "subject": info.subject,
        "names": list(info.names),
        "ca": info.is_ca,
        "missing": list(info.missing),
        "not_after": info.not_after.isoformat(),
        "days_left": info.days_left(datetime.now(UTC)),
    }
