"""``[rerouter.settings]`` of the rerouter ``ovn``: read and checked. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vmnet.errors import ConfigError

NORTHBOUND: Final = "unix:/var/run/ovn/ovnnb_db.sock"
SOUTHBOUND: Final = "unix:/var/run/ovn/ovnsb_db.sock"
ACTIVATIONS: Final = ("rarp", "none")
CUTS: Final = ("shrink", "none")
TLS: Final = ("tls_ca", "tls_certificate", "tls_key")
_LIMIT_MAX_S: Final = 600.0
_REMOTE: Final = re.compile(r"unix:/\S+|(?:tcp|ssl):\S+:[0-9]{1,5}")
_MAC: Final = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")


@dataclass(frozen=True)
class OvnSettings:
    """``northbound``, ``southbound``: OVSDB connection methods, a cluster's members with commas between them. ``chassis``: by host.
    ``ports``: Logical_Switch_Port by MAC. ``confirm``: chassis that confirm besides the two. ``limit_s``: of each wait.
    ``tls``: CA, certificate, key; of the whole process, as python-ovs has it."""

    northbound: str = NORTHBOUND
    southbound: str = SOUTHBOUND
    chassis: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, str] = field(default_factory=dict)
    confirm: tuple[str, ...] = ()
    activation: str = "rarp"
    at_cut_over: str = "shrink"
    limit_s: float = 10.0
    tls: tuple[str, str, str] | None = None

    def chassis_of(self, host: str) -> str:
        return self.chassis.get(host, host)


def parse(settings: Mapping[str, Any]) -> OvnSettings:
    """ConfigError names the setting and what it takes."""
    known = (set(OvnSettings.__dataclass_fields__) - {"tls"}) | set(TLS)
    unknown = sorted(str(one) for one in settings if one not in known)
    if unknown:
        raise ConfigError(
            f"[rerouter.settings] has no {unknown[0]!r}", f"it takes {', '.join(sorted(known))}"
        )
    made = OvnSettings(
        northbound=_remote(settings, "northbound", NORTHBOUND),
        southbound=_remote(settings, "southbound", SOUTHBOUND),
        chassis=_names(settings, "chassis"),
        ports={_mac(mac): port for mac, port in _names(settings, "ports").items()},
        confirm=_confirm(settings),
        activation=_one_of(settings, "activation", ACTIVATIONS),
        at_cut_over=_one_of(settings, "at_cut_over", CUTS),
        limit_s=_limit(settings),
        tls=_tls(settings),
    )
    if made.tls is None and "ssl:" in made.northbound + made.southbound:
        raise _wrong("northbound", "ssl: needs tls_ca, tls_certificate and tls_key")
    return made


def _wrong(name: str, wants: str) -> ConfigError:
    return ConfigError(f"[rerouter.settings] {name} is wrong", f"{name}: {wants}")


def _remote(settings: Mapping[str, Any], name: str, default: str) -> str:
    value = settings.get(name, default)
    if not isinstance(value, str) or not all(_REMOTE.fullmatch(one) for one in value.split(",")):
        raise _wrong(
            name, "unix:/PATH, tcp:ADDRESS:PORT or ssl:ADDRESS:PORT, several with commas between them"
        )
    return value


def _names(settings: Mapping[str, Any], name: str) -> dict[str, str]:
    value = settings.get(name, {})
    if not isinstance(value, Mapping) or not all(_name(word) for pair in value.items() for word in pair):
        raise _wrong(name, 'a table of names, as { host1 = "chassis1" }')
    return dict(value)


def _name(word: object) -> bool:
    """A comma would be two chassis to OVN."""
    return isinstance(word, str) and bool(word) and word.isprintable() and not set(word) & set(", ")


def _mac(text: str) -> str:
    if not _MAC.fullmatch(text.lower()):
        raise _wrong("ports", 'MAC addresses as keys, as { "52:54:00:00:00:01" = "port1" }')
    return text.lower()


def _confirm(settings: Mapping[str, Any]) -> tuple[str, ...]:
    value = settings.get("confirm", ())
    if not isinstance(value, list | tuple) or not all(map(_name, value)):
        raise _wrong("confirm", "a list of chassis")
    return tuple(value)


def _one_of(settings: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    value = settings.get(name, known[0])
    if value not in known:
        raise _wrong(name, f"one of {', '.join(known)}")
    return str(value)


def _limit(settings: Mapping[str, Any]) -> float:
    value = settings.get("limit_s", 10.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LIMIT_MAX_S:
        raise _wrong("limit_s", f"seconds, at most {_LIMIT_MAX_S:g}")
    return float(value)


def _tls(settings: Mapping[str, Any]) -> tuple[str, str, str] | None:
    given = [settings.get(name) for name in TLS]
    if given == [None, None, None]:
        return None
    for name, path in zip(TLS, given, strict=True):
        if not isinstance(path, str) or not path.startswith("/"):
            raise _wrong(name, "a file's whole path; the three go together")
    return str(given[0]), str(given[1]), str(given[2])
