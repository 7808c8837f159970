"""Who a peer is: by its certificate; in plain mode by its configured address, for a lab on one machine only."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass

from vmnet.certificate_names import SWITCH_URI_PREFIX, URI_PREFIX
from vmnet.config import Config, Tls
from vmnet.errors import ConfigError, PeerError


def server_context(tls: Tls) -> ssl.SSLContext | None:
    """TLS 1.3 that demands a certificate of our CA; None in plain mode. Raises ConfigError."""
    return None if tls.plain else _context(tls, ssl.PROTOCOL_TLS_SERVER)


def client_context(tls: Tls) -> ssl.SSLContext | None:
    """As ``server_context``, for the connecting end: names are checked by ``verify``, not by address."""
    return None if tls.plain else _context(tls, ssl.PROTOCOL_TLS_CLIENT)


def _context(tls: Tls, protocol: ssl._SSLMethod) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    for path in (tls.ca, tls.certificate, tls.key):
        if not path.exists():
            raise ConfigError(
                f"{path} is missing", "create it with `vmnet pki`, or see [tls] in the configuration"
            )
    load(context, tls)
    return context


def load(context: ssl.SSLContext, tls: Tls) -> None:
    """Give ``context`` the files of ``tls``; connections that it makes from now on use them. Raises ConfigError.

    A revoked certificate is refused if there is a list of them. Of several lists OpenSSL uses the latest.
    """
    try:
        context.load_verify_locations(tls.ca)
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.crl.exists():
            context.load_verify_locations(tls.crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except OSError as error:
        files = f"{tls.certificate}, {tls.key}, {tls.ca} or {tls.crl}"
        raise ConfigError(
            f"{files} cannot be used: {error.strerror or error}", "see them with `vmnet pki show`"
        ) from None


def verify(config: Config, writer: asyncio.StreamWriter, claimed: str) -> None:
    """Raise PeerError unless the other end of a connection is the configured peer ``claimed``."""
    if claimed not in config.peers:
        raise PeerError(f"'{claimed}' is no peer of {config.host.name}", f"add [peers.{claimed}] there")
    tls = writer.get_extra_info("ssl_object")
    if tls is not None:
        verify_certificate(tls, claimed)
    elif not config.tls.plain:
        raise PeerError(f"'{claimed}' came without TLS", "set up [tls] on both hosts")
    else:
        _verify_address(config, writer, claimed)


@dataclass(frozen=True)
class Barred:
    """Which certificates count no more on connections that are there: ``revoked`` serial numbers, and what ends before ``now_s``.

    ``now_s``: seconds since the epoch. OpenSSL looks at both as a connection is made, and never again.
    """

    revoked: frozenset[int]
    now_s: float

    def why(self, tls: ssl.SSLObject | None) -> str:
        """What is wrong with the other end's certificate; "" if nothing is, or there is none."""
        found = (tls.getpeercert() if tls is not None else None) or {}
        number, ends = found.get("serialNumber"), found.get("notAfter")
        if isinstance(number, str) and int(number, 16) in self.revoked:
            return "was revoked"
        if isinstance(ends, str) and ssl.cert_time_to_seconds(ends) < self.now_s:
            return f"has expired ({ends})"
        return ""


def host_names(tls: ssl.SSLObject) -> list[str]:
    """Of the other end's certificate, as `vmnet pki host` writes them."""
    return _named(tls, URI_PREFIX)


def switch_names(tls: ssl.SSLObject) -> list[str]:
    """Of the other end's certificate, as `vmnet pki switch` writes them."""
    return _named(tls, SWITCH_URI_PREFIX)


def _named(tls: ssl.SSLObject, prefix: str) -> list[str]:
    alternatives = (tls.getpeercert() or {}).get("subjectAltName", ())
    uris = [str(pair[1]) for pair in alternatives if pair[0] == "URI"]
    return [uri.removeprefix(prefix) for uri in uris if uri.startswith(prefix)]


def verify_certificate(tls: ssl.SSLObject, claimed: str) -> None:
    """Raise PeerError unless the other end's certificate is that of ``claimed``."""
    certificate = tls.getpeercert() or {}
    alternatives = certificate.get("subjectAltName", ())
    wanted = {("DNS", claimed), ("URI", URI_PREFIX + claimed)}
    if not wanted & set(alternatives):
        names = ", ".join(str(one[1]) for one in alternatives) or "nobody"
        raise PeerError(
            f"'{claimed}' showed a certificate of {names}", f"create one: vmnet pki host {claimed} DIR"
        )


def _verify_address(config: Config, writer: asyncio.StreamWriter, claimed: str) -> None:
    came = remote_address(writer)
    if came != ipaddress.ip_address(config.peers[claimed].address):
        what = f"'{claimed}' came from {came}, not from {config.peers[claimed].address}"
        raise PeerError(what, "correct peers.*.address, or its listen.address; better, use TLS")


def remote_address(writer: asyncio.StreamWriter) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The other end's address; IPv4 as IPv4, also when it came to a socket for both."""
    address = ipaddress.ip_address(writer.get_extra_info("peername")[0].partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
