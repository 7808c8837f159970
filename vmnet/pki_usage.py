"""What a certificate must permit before vmnet, libvirt and QEMU accept it. Pure."""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

# Of older vmnet certificates, this is what is missing. libvirt 9.0 refuses such a certificate at its start
# (virNetTLSContextCheckCertKeyUsage() in src/rpc/virnettlscontext.c), for EC keys too.
KEY_ENCIPHERMENT = "key encipherment"


def missing_usages(certificate: x509.Certificate) -> tuple[str, ...]:
    """Names of the usages that a host's certificate lacks; empty if it serves vmnet, libvirt and QEMU."""
    return (*_missing_key_usages(certificate), *_missing_purposes(certificate))


def _missing_key_usages(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:  # without the extension everything is permitted (RFC 5280, 4.2.1.3)
        return ()
    permitted = {"digital signature": usage.digital_signature, KEY_ENCIPHERMENT: usage.key_encipherment}
    return tuple(name for name, allowed in permitted.items() if not allowed)


def _missing_purposes(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ()
    wanted = {
        "server authentication": ExtendedKeyUsageOID.SERVER_AUTH,
        "client authentication": ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    return tuple(name for name, purpose in wanted.items() if purpose not in purposes)
