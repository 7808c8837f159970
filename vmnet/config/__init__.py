"""The configuration of one host: /etc/vmnet/vmnet.toml, validated whole, all of it optional."""

from vmnet.config.model import (
    BridgeConfig,
    Config,
    Daemon,
    Hold,
    Hooks,
    Host,
    Libvirt,
    Listen,
    Peer,
    Recorder,
    Router,
    Store,
    Switchover,
    Tls,
)
from vmnet.config.parse import DEFAULT_PATH, load, parse

__all__ = [
    "DEFAULT_PATH",
    "BridgeConfig",
    "Config",
    "Daemon",
    "Hold",
    "Hooks",
    "Host",
    "Libvirt",
    "Listen",
    "Peer",
    "Recorder",
    "Router",
    "Store",
    "Switchover",
    "Tls",
    "load",
    "parse",
]
