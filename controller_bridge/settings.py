"""The controller's settings, a TOML file.

.. code-block:: toml

    listen = ["ssl:0.0.0.0:6653"]            # tcp:, ssl: or unix:, as Open vSwitch's tools write addresses
    plain = false                            # true: tcp: may be listened at, and every switch is believed. For labs
    gateways = ["10.1.0.254", "fd01::fe"]    # the fabric answers for these: stations of all subnets reach each other through them
    key = "/var/lib/vmnet/lldp.key"          # signs LLDP; made if it is not there. The same on every controller of a fabric
    outside = ["s2:h1"]                      # ports at which a hypervisor is: nothing heard there makes a link
    links = ["s1:1", "s2:1"]                 # the only ports at which there may be a switch; without it: all but those
    packets_per_s = 500                      # of each port that the controller deals with

    [switches]                               # names of datapath identifiers; others are called by their identifier
    s1 = "0000000000000001"

    [hosts]                                  # where hypervisors' uplinks are; their daemons may move VMs. They are outside, too
    a = "s2:h1"

    [table_sizes]                            # how many entries of ours a switch may have
    s1 = 2000

    [api]                                    # where daemons ask. People always can at unix:/run/vmnet-controller/controller.sock
    listen = ["ssl:[::]:6654"]
    plain = false                            # true: tcp: may be listened at, and who asks is believed. For labs

    [tls]                                    # for ssl:, as `vmnet pki` makes them
    ca = "/etc/vmnet/pki/ca.pem"
    certificate = "/etc/vmnet/pki/host.pem"
    key = "/etc/vmnet/pki/host.key"
"""

from __future__ import annotations

import os
import re
import secrets
import tomllib
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from controller_bridge import address
from controller_bridge.address import Address
from controller_bridge.api.words import PORT
from controller_bridge.core.hosts import Address as IpAddress
from controller_bridge.core.marks import MOST_HOSTS
from controller_bridge.fabric import End, end
from vmnet.config.checks import HOST_NAME
from vmnet.config.model import Tls
from vmnet.errors import ConfigError

DEFAULT: Final = Path("/etc/vmnet/controller.toml")
_KEY_BYTES: Final = 32
_DATAPATH = re.compile(r"[0-9a-fA-F]{1,16}\Z")
_KNOWN: Final = {
    *("listen", "plain", "gateways", "key", "outside", "links", "packets_per_s"),
    *("switches", "hosts", "table_sizes", "api", "tls"),
}
_LEAST_ENTRIES: Final = 16
"""The fixed ones, and a few."""


@dataclass(frozen=True)
class Settings:
    """``names``: of datapath identifiers. ``outside``, ``links``, ``hosts``: ports by number or name. ``api``: where it is asked."""

    listen: tuple[Address, ...] = (Address("ssl", "::", address.PORT),)
    gateways: frozenset[IpAddress] = frozenset()
    key: Path = Path("/var/lib/vmnet/lldp.key")
    outside: tuple[End, ...] = ()
    links: tuple[End, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    tls: Tls = field(default_factory=Tls)
    packets_per_s: int = 500
    hosts: Mapping[str, End] = field(default_factory=dict)
    table_sizes: Mapping[str, int] = field(default_factory=dict)
    api: tuple[Address, ...] = ()


def read(file: Path) -> Settings:
    """ConfigError if there is no such file, or it makes no sense."""
    try:
        return parse(tomllib.loads(file.read_text()))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}", "see docs/openflow.md") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {' '.join(str(error).split())}") from None
    except ConfigError as error:
        raise ConfigError(f"{file}: {error.message}", error.hint) from None


def parse(found: Mapping[str, Any]) -> Settings:
    """ConfigError naming what is wrong."""
    if unknown := found.keys() - _KNOWN:
        raise ConfigError(f"unknown setting {min(unknown)!r}", f"there are {', '.join(sorted(_KNOWN))}")
    names = {_datapath(text): name for name, text in _table(found, "switches").items()}
    tls = {name: Path(text) for name, text in _table(found, "tls").items()}
    if wrong := tls.keys() - {"ca", "certificate", "key", "crl"}:
        raise ConfigError(f"unknown setting 'tls.{min(wrong)}'", "there are ca, certificate, key and crl")
    switches = dict.fromkeys(names.values())
    outside, hosts = _ends(found, "outside", switches), _hosts(_table(found, "hosts"), switches)
    links = _ends(found, "links", switches)
    if both := {*links} & {*outside, *hosts.values()}:
        raise ConfigError(
            f"{min(both)} is among 'links', and 'outside' or under [hosts]", "it is either a link or not"
        )
    usual = Settings()
    return Settings(
        _listen(found, address.PORT, "the controller", "is any switch") or usual.listen,
        frozenset(_ip(one) for one in _texts(found, "gateways")),
        Path(found["key"]) if isinstance(found.get("key"), str) else usual.key,
        outside,
        links,
        names,
        Tls(
            tls.get("ca", usual.tls.ca),
            tls.get("certificate", usual.tls.certificate),
            tls.get("key", usual.tls.key),
            crl=tls.get("crl", usual.tls.crl),
        ),
        _number(found, "packets_per_s", usual.packets_per_s),
        hosts,
        _table_sizes(found, set(names.values())),
        _api(found),
    )


def _ends(found: Mapping[str, Any], name: str, switches: Mapping[str, None]) -> tuple[End, ...]:
    return tuple(end(one, switches) for one in _texts(found, name))


def _hosts(texts: Mapping[str, str], switches: Mapping[str, None]) -> dict[str, End]:
    if len(texts) > MOST_HOSTS:
        raise ConfigError(f"more than {MOST_HOSTS} [hosts]")
    if wrong := [name for name in texts if not HOST_NAME.match(name)]:
        raise ConfigError(f"{wrong[0]!r} under [hosts] is no host's name")
    hosts = {name: end(text, switches) for name, text in texts.items()}
    if len(set(hosts.values())) < len(hosts):
        raise ConfigError("two [hosts] at one port", "each host's VMs are its own: give it a port of its own")
    return hosts


def _table_sizes(found: Mapping[str, Any], switches: Set[str]) -> dict[str, int]:
    table = found.get("table_sizes", {})
    if not isinstance(table, dict):
        raise ConfigError("[table_sizes] is no table")
    if unknown := table.keys() - switches:
        raise ConfigError(f"there is no switch {min(unknown)!r}", f"known are {', '.join(sorted(switches))}")
    return {name: _number(table, name, 0, _LEAST_ENTRIES) for name in table}


def _api(found: Mapping[str, Any]) -> tuple[Address, ...]:
    api = found.get("api", {})
    if not isinstance(api, dict) or api.keys() - {"listen", "plain"}:
        raise ConfigError("[api] has other settings than listen, a list, and plain, true or false")
    return _listen(api, PORT, "[api]", "is any host")


def _listen(table: Mapping[str, Any], port: int, who: str, claim: str) -> tuple[Address, ...]:
    """``who`` would listen; ``claim``: what anybody could say then that he is."""
    plain = table.get("plain", False)
    if type(plain) is not bool:
        raise ConfigError("'plain' is neither true nor false")
    listen = tuple(address.parse(one, port) for one in _texts(table, "listen"))
    if any(one.kind == "tcp" for one in listen) and not plain:
        raise ConfigError(
            f"{who} would listen at tcp:, where anybody can say that he {claim}",
            "use ssl:, or in a lab plain = true",
        )
    return listen


def _number(found: Mapping[str, Any], name: str, usual: int, least: int = 1) -> int:
    value = found.get(name, usual)
    if type(value) is not int or not least <= value <= 10_000_000:
        raise ConfigError(f"'{name}' is no whole number from {least} to 10000000")
    return value


def _texts(found: Mapping[str, Any], name: str) -> list[str]:
    listed = found.get(name, [])
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise ConfigError(f"'{name}' is no list of texts")
    return listed


def _table(found: Mapping[str, Any], name: str) -> dict[str, str]:
    table = found.get(name, {})
    if not isinstance(table, dict) or not all(isinstance(one, str) for one in table.values()):
        raise ConfigError(f"[{name}] is no table of texts")
    return table


def _datapath(text: str) -> int:
    if not _DATAPATH.match(text):
        raise ConfigError(
            f"{text!r} is no datapath identifier",
            "up to 16 hexadecimal digits, as `ovs-ofctl show` says them",
        )
    return int(text, 16)


def _ip(text: str) -> IpAddress:
    try:
        return ip_address(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no IP address", 'write gateways = ["10.1.0.254"]') from None


def lldp_key(file: Path) -> bytes:
    """Read, or made if it is not there (mode 600). ConfigError if it cannot be, or is no such key."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(secrets.token_bytes(_KEY_BYTES))
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"cannot make {file}: {error.strerror}") from None
    try:
        key = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    if len(key) < _KEY_BYTES:
        raise ConfigError(f"{file} is no key: {len(key)} bytes", "remove it, and a new one is made")
    return key
