"""Certificates that are believed no more: the CA's list of them (RFC 5280, section 5), a file that every host has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from vmnet import pki
from vmnet.errors import ConfigError, NotFoundError

CRL = "crl.pem"
# The hosts' clocks need not agree.
_BACKDATE = timedelta(days=1)
_SECOND = timedelta(seconds=1)


def revoke(name: str, directory: Path) -> Path:
    """Put the certificates of host or switch NAME on the list of the CA in ``directory``; returns the list's file. Idempotent.

    NotFoundError if NAME has none, ConfigError if a file cannot be used.
    """
    ca, key = pki.load_ca(directory)
    files = [
        file for file in (directory / name / "host.pem", directory / name / "switch.pem") if file.exists()
    ]
    if not files:
        raise NotFoundError(f"{name} has no certificate in {directory}", "see them: vmnet pki show DIR")
    path = directory / CRL
    before = read(path, ca) if path.exists() else None
    known = [] if before is None else list(before)
    updated, now = datetime.now(UTC) - _BACKDATE, datetime.now(UTC)
    if before is not None:  # of two lists the later one counts
        updated = max(updated, before.last_update_utc + _SECOND)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(updated)
        .next_update(ca.not_valid_after_utc)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(x509.CRLNumber(int(updated.timestamp())), critical=False)
    )
    for one in known:
        builder = builder.add_revoked_certificate(one)
    new = {pki.load_certificate(file).serial_number for file in files} - {one.serial_number for one in known}
    for serial in sorted(new):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    pki.write(path, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), 0o644)
    return path


def read(path: Path, ca: x509.Certificate) -> x509.CertificateRevocationList:
    """ConfigError if it cannot be read, is damaged, is not of this CA or has expired."""
    try:
        found = x509.load_pem_x509_crl(pki.read(path))
        valid = found.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise ConfigError(f"{path} is no list of revoked certificates in PEM", "copy it again") from None
    if not valid:
        raise ConfigError(f"{path} is not of the CA in use: nobody could be believed", "copy the right one")
    if found.next_update_utc is not None and found.next_update_utc <= datetime.now(UTC):
        raise ConfigError(f"{path} has expired: nobody could be believed", "make it again: vmnet pki revoke")
    return found


def serials(path: Path, ca: Path) -> frozenset[int]:
    """Serial numbers of the certificates on the list ``path``; none if there is no such file. Raises as :func:`read`."""
    if not path.exists():
        return frozenset()
    return frozenset(one.serial_number for one in read(path, pki.load_certificate(ca)))
