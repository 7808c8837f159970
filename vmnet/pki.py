"""A small certificate authority for vmnet and libvirt: EC P-256, one folder a host that is copied there as it is."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vmnet.certificate_names import SWITCH_URI_PREFIX, URI_PREFIX
from vmnet.config.checks import host_name
from vmnet.errors import ConfigError, NotFoundError, RefusedError
from vmnet.pki_usage import missing_usages

CA_DAYS = 3650
HOST_DAYS = 825
# The hosts' clocks need not agree, least of all just after a boot.
_BACKDATE = timedelta(days=1)
_CA_NAME = "vmnet CA"
RENEW = "renew it where the CA is: vmnet pki host NAME DIR --address IP --force"


@dataclass(frozen=True)
class CertificateInfo:
    """One certificate file: whom it names, until when (UTC) it is valid, which usages a host's certificate lacks."""

    path: Path
    subject: str
    names: tuple[str, ...]
    is_ca: bool
    not_after: datetime
    missing: tuple[str, ...] = ()

    def days_left(self, now: datetime) -> int:
        """Whole days until it expires; negative afterwards."""
        return (self.not_after - now).days


def init(directory: Path, *, force: bool = False, days: float = CA_DAYS) -> CertificateInfo:
    """Create ca.pem and ca.key (0600) in ``directory``.

    Raises RefusedError if they exist and ``force`` is not given, ConfigError if they cannot be written.
    """
    files = (directory / "ca.pem", directory / "ca.key")
    _refuse_overwrite(files, force)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _CA_NAME)])
    builder = _builder(name, name, key.public_key(), datetime.now(UTC) + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    write(files[0], _pem(certificate), 0o644)
    write(files[1], _key_pem(key), 0o600)
    return _info(files[0], certificate)


def host(
    name: str, directory: Path, addresses: Iterable[str] = (), *, force: bool = False, days: float = HOST_DAYS
) -> CertificateInfo:
    """Create ``directory``/NAME/ with ca.pem, host.pem and host.key (0600): all a host needs in /etc/vmnet/pki.

    ``directory`` is the one ``init`` filled. The certificate serves both ends and never outlives its CA. Raises
    ConfigError for a bad name, address or CA, NotFoundError without a CA, RefusedError rather than overwrite.
    """
    return _issue("host", URI_PREFIX, name, directory, addresses, force, days)


def switch(name: str, directory: Path, *, force: bool = False) -> CertificateInfo:
    """Create ``directory``/NAME/ with ca.pem, switch.pem and switch.key (0600), by which vmnet-controllerd knows switch NAME.

    Raises as :func:`host` does.
    """
    return _issue("switch", SWITCH_URI_PREFIX, name, directory, (), force, HOST_DAYS)


def _issue(
    kind: str, prefix: str, name: str, directory: Path, addresses: Iterable[str], force: bool, days: float
) -> CertificateInfo:
    """``kind``: how its files are called; ``prefix``: of the URI that says what it is for."""
    _check(name, addresses)
    ca, ca_key = load_ca(directory)
    folder = directory / name
    file, key_file = folder / f"{kind}.pem", folder / f"{kind}.key"
    _refuse_overwrite((file, key_file), force)
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(datetime.now(UTC) + timedelta(days=days), ca.not_valid_after_utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, ca.subject, key.public_key(), until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature", "key_encipherment"), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName(_names(prefix, name, addresses)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    write(folder / "ca.pem", _pem(ca), 0o644)
    write(file, _pem(certificate), 0o644)
    write(key_file, _key_pem(key), 0o600)
    return _info(file, certificate)


def show(directory: Path) -> Iterator[CertificateInfo]:
    """The certificates in ``directory`` and in its hosts' and switches' folders. Raises NotFoundError if there is none."""
    files = sorted(directory.glob("*.pem")) + sorted(
        [*directory.glob("*/host.pem"), *directory.glob("*/switch.pem")]
    )
    if not files:
        raise NotFoundError(f"no certificates in {directory}", "create them: vmnet pki init DIR")
    for path in files:
        yield _info(path, load_certificate(path))


def _check(name: str, addresses: Iterable[str]) -> None:
    try:
        host_name(name)
    except ValueError as error:
        what, _, advice = str(error).partition("; ")
        raise ConfigError(what, advice) from None
    for address in addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ConfigError(f"{address!r} is not an IP address", "give --address 10.0.0.1") from None


def is_ours(certificate: x509.Certificate) -> bool:
    """Whether ``init`` or ``host`` made it: by the CA's name or the host's URI. Proves nothing about the signature."""
    if named_as_ours(certificate.subject):
        return True
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return any(
        uri.startswith(URI_PREFIX) for uri in alternative.get_values_for_type(x509.UniformResourceIdentifier)
    )


def named_as_ours(name: x509.Name) -> bool:
    """Whether it is the name of a CA that ``init`` made."""
    return any(one.value == _CA_NAME for one in name.get_attributes_for_oid(NameOID.COMMON_NAME))


def _names(prefix: str, name: str, addresses: Iterable[str]) -> list[x509.GeneralName]:
    """A switch has no DNS name: a peer is also known by that alone."""
    uri = x509.UniformResourceIdentifier(prefix + name)
    named = [x509.DNSName(name), uri] if prefix == URI_PREFIX else [uri]
    return [*named, *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _BACKDATE)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*allowed: str) -> x509.KeyUsage:
    every = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
    every += " key_cert_sign crl_sign encipher_only decipher_only"
    return x509.KeyUsage(**{one: one in allowed for one in every.split()})


def load_ca(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Certificate and key that :func:`init` made. NotFoundError, ConfigError."""
    certificate = load_certificate(directory / "ca.pem")
    path = directory / "ca.key"
    try:
        key = serialization.load_pem_private_key(read(path), None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no private key: {error}", "restore it, or create a new CA") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(f"{path} does not belong to {directory / 'ca.pem'}", "restore the right one")
    return certificate, key


def load_certificate(path: Path) -> x509.Certificate:
    """Raises NotFoundError if there is none, ConfigError if it cannot be read or is no certificate."""
    try:
        return x509.load_pem_x509_certificate(read(path))
    except ValueError:
        raise ConfigError(f"{path} is no certificate in PEM", "restore it, or create it anew") from None


def read(path: Path) -> bytes:
    """Raises NotFoundError if there is no such file, ConfigError if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist", "create a CA first: vmnet pki init DIR") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", "run this as its owner") from None


def _info(path: Path, certificate: x509.Certificate) -> CertificateInfo:
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    names: tuple[str, ...] = ()
    is_ca = False
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names = tuple(str(one.value) for one in extension.value)
        elif isinstance(extension.value, x509.BasicConstraints):
            is_ca = extension.value.ca
    subject = str(common[0].value) if common else certificate.subject.rfc4514_string()
    missing = () if is_ca else missing_usages(certificate)
    return CertificateInfo(path, subject, names, is_ca, certificate.not_valid_after_utc, missing)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    none = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none)


def _refuse_overwrite(files: Iterable[Path], force: bool) -> None:
    for path in files:
        if path.exists() and not force:
            raise RefusedError(
                f"{path} exists", "give --force to replace it (its old certificates end with it)"
            )


def write(path: Path, data: bytes, mode: int) -> None:
    """Write a whole file or none, never readable by others for a moment if ``mode`` says so."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise ConfigError(
            f"cannot write {path}: {error.strerror}", "choose another folder, or run as root"
        ) from None
