"""The settings of one host. The dataclasses are the schema: names, defaults and checks stand in one place.

Every number carries its unit in its name, or is a count. ``docs/configuration.md`` explains each setting.
"""
# ruff: noqa: RUF009 (the calls in the class bodies return dataclasses.field())

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vmnet.config import checks

T = TypeVar("T")


def _setting(default: T, check: checks.Check) -> T:
    value: T = field(default=default, metadata={"check": check})
    return value


def _required(check: checks.Check) -> Any:
    return field(metadata={"check": check})


def _section(kind: Callable[[], T]) -> T:
    value: T = field(default_factory=kind, metadata={"section": kind})
    return value


def _table(key: checks.Check, section: type | None = None, value: checks.Check | None = None) -> Any:
    """A table whose keys the user chooses, with a section or a plain value under each."""
    return field(default_factory=dict, metadata={"key": key, "section": section, "check": value})


def default_host_name() -> str:
    """The short host name; what a host name may not hold becomes a '-'."""
    name = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().split(".")[0])[:63].strip("-_")
    return name or "localhost"


@dataclass(frozen=True)
class Host:
    name: str = field(default_factory=default_host_name, metadata={"check": checks.host_name})


@dataclass(frozen=True)
class Libvirt:
    uri: str = _setting("qemu:///system", checks.uri)


@dataclass(frozen=True)
class Daemon:
    socket: Path = _setting(Path("/run/vmnet/dom0d.sock"), checks.socket_path)
    state_dir: Path = _setting(Path("/var/lib/vmnet"), checks.absolute_path)
    log_level: str = _setting("info", checks.choice("debug", "info", "warning", "error"))


@dataclass(frozen=True)
class Hooks:
    when_daemon_away: str = _setting("continue", checks.choice("continue", "refuse"))
    timeout_ms: int = _setting(10_000, checks.integer(10, 60_000, "ms"))
    refuse_second_start: bool = _setting(True, checks.boolean)


@dataclass(frozen=True)
class Listen:
    address: str = _setting("::", checks.address)
    port: int = _setting(6642, checks.integer(1, 65535))
    tunnel_address: str | None = _setting(None, checks.unicast)
    tunnel_filter: bool = _setting(True, checks.boolean)


@dataclass(frozen=True)
class Tls:
    ca: Path = _setting(Path("/etc/vmnet/pki/ca.pem"), checks.absolute_path)
    certificate: Path = _setting(Path("/etc/vmnet/pki/host.pem"), checks.absolute_path)
    key: Path = _setting(Path("/etc/vmnet/pki/host.key"), checks.absolute_path)
    crl: Path = _setting(Path("/etc/vmnet/pki/crl.pem"), checks.absolute_path)
    plain: bool = _setting(False, checks.boolean)


@dataclass(frozen=True)
class Peer:
    """Another host's daemon. Without a ``libvirt_uri``, ``vmnet migrate`` cannot send VMs there."""

    address: str = _required(checks.unicast)
    port: int = _setting(6642, checks.integer(1, 65535))
    tunnel_address: str | None = _setting(None, checks.unicast)
    libvirt_uri: str = _setting("", checks.uri)
    migrate_uri: str | None = _setting(None, checks.uri)


@dataclass(frozen=True)
class BridgeConfig:
    segment: str = _setting("lan", checks.segment_name)


@dataclass(frozen=True)
class Hold:
    max_bytes: int = _setting(134_217_728, checks.integer(65_536, 2**36, "bytes"))
    max_packets: int = _setting(262_144, checks.integer(100, 524_288, "packets"))


@dataclass(frozen=True)
class Recorder:
    bytes: int = _setting(16_777_216, checks.integer(1_048_576, 2**32 - 1, "bytes"))


@dataclass(frozen=True)
class Switchover:
    max_downtime_ms: int = _setting(300, checks.integer(1, 60_000, "ms"))
    marker_timeout_ms: int = _setting(1000, checks.integer(1, 60_000, "ms"))


@dataclass(frozen=True)
class Router:
    """How this host carries the data planes of virtual routers."""

    address: str = _setting("169.254.42.1/30", checks.interface_address)
    fpm_port: int = _setting(2620, checks.integer(1, 65535))
    agent_port: int = _setting(2621, checks.integer(1, 65535))
    keep_s: int = _setting(120, checks.integer(0, 86_400, "s"))
    settle_s: int = _setting(3, checks.integer(1, 3600, "s"))
    restart_s: int = _setting(30, checks.integer(0, 3600, "s"))
    bfd_patience: int = _setting(4, checks.integer(1, 80, "times"))
    max_routes: int = _setting(2_000_000, checks.integer(1000, 20_000_000))
    control: tuple[str, ...] = _setting((), checks.list_of(checks.control_rule))


@dataclass(frozen=True)
class RerouterConfig:
    """What is told of VMs' moves, if the fabric does not learn them by itself."""

    kind: str | None = _setting(None, checks.host_name)
    settings: Mapping[str, Any] = field(default_factory=dict, metadata={"check": checks.table})


@dataclass(frozen=True)
class Store:
    remotes: tuple[str, ...] = _setting((), checks.list_of(checks.remote))


@dataclass(frozen=True)
class Config:
    """Everything in vmnet.toml; ``Config()`` is what an empty file means."""

    host: Host = _section(Host)
    libvirt: Libvirt = _section(Libvirt)
    daemon: Daemon = _section(Daemon)
    hooks: Hooks = _section(Hooks)
    listen: Listen = _section(Listen)
    tls: Tls = _section(Tls)
    hold: Hold = _section(Hold)
    recorder: Recorder = _section(Recorder)
    switchover: Switchover = _section(Switchover)
    router: Router = _section(Router)
    rerouter: RerouterConfig = _section(RerouterConfig)
    store: Store = _section(Store)
    peers: Mapping[str, Peer] = _table(checks.host_name, section=Peer)
    bridges: Mapping[str, BridgeConfig] = _table(checks.interface_name, section=BridgeConfig)
    binding: Mapping[str, str] = _table(checks.interface_name, value=checks.interface_name)
