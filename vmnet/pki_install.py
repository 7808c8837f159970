"""Puts a host's certificate where libvirt and QEMU look for one. Everything is checked before the first file is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from vmnet import pki
from vmnet.errors import ConfigError, RefusedError, VmnetError
from vmnet.pki_revoked import CRL
from vmnet.pki_revoked import read as read_crl
from vmnet.pki_usage import missing_usages

QEMU_GROUP = "libvirt-qemu"
CA, CERTIFICATE, KEY = "ca.pem", "host.pem", "host.key"


@dataclass(frozen=True)
class Target:
    """One file to place: ``source`` is a file of the host's folder, ``mode`` the permission bits of the copy."""

    source: str
    path: str
    mode: int = 0o644
    group: str = "root"


# libvirt's built-in places: https://libvirt.org/kbase/tlscerts.html
LIBVIRT = (
    Target(CA, "etc/pki/CA/cacert.pem"),
    Target(CERTIFICATE, "etc/pki/libvirt/servercert.pem"),
    Target(KEY, "etc/pki/libvirt/private/serverkey.pem", 0o600),
    Target(CERTIFICATE, "etc/pki/libvirt/clientcert.pem"),
    Target(KEY, "etc/pki/libvirt/private/clientkey.pem", 0o600),
)
REVOKED = Target(CRL, "etc/pki/CA/cacrl.pem")
"""libvirt's place for the CA's list of revoked certificates; without the file it refuses none."""
# `default_tls_x509_cert_dir` of /etc/libvirt/qemu.conf. QEMU reads its key as user libvirt-qemu.
QEMU = (
    Target(CA, "etc/pki/qemu/ca-cert.pem"),
    Target(CERTIFICATE, "etc/pki/qemu/server-cert.pem"),
    Target(KEY, "etc/pki/qemu/server-key.pem", 0o640, QEMU_GROUP),
    Target(CERTIFICATE, "etc/pki/qemu/client-cert.pem"),
    Target(KEY, "etc/pki/qemu/client-key.pem", 0o640, QEMU_GROUP),
)


@dataclass(frozen=True)
class Placed:
    """``action``: "installed", "replaced" or "unchanged"."""

    path: Path
    action: str


def place(directory: Path, targets: tuple[Target, ...], root: Path, *, force: bool = False) -> list[Placed]:
    """Copy the certificate of ``directory`` (what ``pki.host`` made) to each target below ``root``. Idempotent.

    Raises NotFoundError or ConfigError if the certificate is missing, damaged or expired, RefusedError if it lacks a
    usage or if a target holds a file that vmnet did not create (unless ``force``).
    """
    content = _checked(directory)
    if targets == LIBVIRT and (directory / CRL).exists():
        read_crl(directory / CRL, pki.load_certificate(directory / CA))
        content[CRL] = pki.read(directory / CRL)
        targets = (*targets, REVOKED)
    actions = [_action(root, target, content[target.source], force) for target in targets]
    for target in targets:
        _make_folder(root, (root / target.path).parent)
        _write(root / target.path, content[target.source], target)
    return [Placed(root / target.path, action) for target, action in zip(targets, actions, strict=True)]


def refuse_shared_ca(directory: Path, root: Path) -> None:
    """RefusedError if libvirt on this host trusts the CA in ``directory``.

    QEMU can read the key in /etc/pki/qemu. libvirt lets every certificate of its CA control the host, so a guest that
    breaks out of QEMU would control all hosts.
    """
    trusted = root / "etc/pki/CA/cacert.pem"
    if trusted.exists() and trusted.read_bytes() == pki.read(directory / CA):
        raise RefusedError(
            f"libvirt trusts the CA in {directory}: QEMU's key would open libvirt on every host",
            "create a CA for QEMU alone: vmnet pki init pki-qemu; --force does it all the same",
        )


def _checked(directory: Path) -> dict[str, bytes]:
    """The three files, known to belong together and to be usable."""
    certificate, ca = pki.load_certificate(directory / CERTIFICATE), pki.load_certificate(directory / CA)
    content = {name: pki.read(directory / name) for name in (CA, CERTIFICATE, KEY)}
    if not _belongs(content[KEY], certificate):
        raise ConfigError(
            f"{directory / KEY} does not belong to {directory / CERTIFICATE}", "copy both again"
        )
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        raise ConfigError(
            f"{directory / CERTIFICATE} is not of the CA in {directory / CA}", "copy both again"
        ) from None
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise ConfigError(
            f"{directory / CERTIFICATE} expired {certificate.not_valid_after_utc:%Y-%m-%d}", pki.RENEW
        )
    missing = missing_usages(certificate)
    if missing:
        raise RefusedError(
            f"{directory / CERTIFICATE} does not permit {' and '.join(missing)}: libvirt refuses it",
            f"an older vmnet made it; {pki.RENEW}",
        )
    return content


def _belongs(key: bytes, certificate: x509.Certificate) -> bool:
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        return False
    return private.public_key() == certificate.public_key()


def _action(root: Path, target: Target, data: bytes, force: bool) -> str:
    path = root / target.path
    if not path.exists():
        return "installed"
    found = pki.read(path)
    if found == data:
        return "unchanged"
    if not force and not _is_ours(root, target, found):
        raise RefusedError(
            f"{path} exists, and vmnet did not create it", "look at it; give --force to replace it"
        )
    return "replaced"


def _is_ours(root: Path, target: Target, found: bytes) -> bool:
    """Whether an earlier run wrote this file: its certificate has a name that only vmnet gives.

    A key counts as ours with the certificate beside it, also if they do not match: an earlier run may have been killed.
    """
    if target.source == CRL:
        return _is_our_list(found)
    if target.source == KEY:
        return any(pki.is_ours(certificate) for certificate in _certificate_beside(root, target))
    try:
        return pki.is_ours(x509.load_pem_x509_certificate(found))
    except ValueError:
        return False


def _is_our_list(found: bytes) -> bool:
    try:
        return pki.named_as_ours(x509.load_pem_x509_crl(found).issuer)
    except ValueError:
        return False


def _certificate_beside(root: Path, key: Target) -> Iterator[x509.Certificate]:
    """The certificate in place for a key (servercert.pem for private/serverkey.pem, and so on), if there is one."""
    for target in (*LIBVIRT, *QEMU):
        if target.source == CERTIFICATE and Path(target.path).name == Path(key.path).name.replace(
            "key", "cert"
        ):
            with suppress(VmnetError):
                yield pki.load_certificate(root / target.path)


def _make_folder(root: Path, folder: Path) -> None:
    """Folders below ``root``: readable by all, but for libvirt's folder of keys."""
    try:
        for part in reversed([folder, *folder.parents]):
            if part.is_relative_to(root) and not part.is_dir():
                part.mkdir(mode=0o700 if part.name == "private" else 0o755)
    except OSError as error:
        raise ConfigError(f"cannot create {folder}: {error.strerror}", "run this as root (sudo)") from None


def _write(path: Path, data: bytes, target: Target) -> None:
    pki.write(path, data, 0o600)
    try:
        if os.geteuid() == 0:
            shutil.chown(path, "root", target.group)
        path.chmod(target.mode)
    except LookupError:  # no such group: this host runs QEMU as root, who may read everything
        path.chmod(0o600)
    except OSError as error:
        raise ConfigError(f"cannot set the owner of {path}: {error.strerror}", "run this as root") from None
