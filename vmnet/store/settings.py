"""Where the store is and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmnet.errors import ConfigError

MiB = 1 << 20
SCHEMES = ("unix:", "tcp:", "ssl:")
SOCKET_PATH_MAX = 107  # sockaddr_un.sun_path holds 108 bytes with the final NUL (unix(7))


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How to open a store. Without ``remotes``, an ovsdb-server of our own keeps one file in ``state_dir``.

    ``remotes`` are OVSDB active connection methods (ovsdb(7)), all of one database or of one cluster's
    members. ``timeout_s`` bounds every call; ``min_free_bytes`` is what ``space_check`` asks of the file
    system under ``state_dir``; a database file of more than ``compact_bytes`` is compacted at start.
    Raises ConfigError when the values cannot work.
    """

    host: str
    state_dir: Path = Path("/var/lib/vmnet")
    run_dir: Path = Path("/run/vmnet")
    remotes: tuple[str, ...] = ()
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    timeout_s: float = 10.0
    min_free_bytes: int = 64 * MiB
    compact_bytes: int = 16 * MiB

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigError("the store needs the host's name", "set [host] name")
        for remote in self.remotes:
            _check_remote(remote)
        if self.uses_tls and not (self.tls_ca and self.tls_certificate and self.tls_key):
            raise ConfigError("an ssl: store remote needs ca, certificate and key", "set them in [tls]")
        if not self.remotes and len(str(self.socket).encode()) > SOCKET_PATH_MAX:
            raise ConfigError(
                f"the path {self.socket} is too long for a unix socket", "choose a shorter run directory"
            )

    @property
    def uses_tls(self) -> bool:
        return any(remote.startswith("ssl:") for remote in self.remotes)

    @property
    def embedded(self) -> bool:
        """Whether the server is our own."""
        return not self.remotes

    @property
    def remote(self) -> str:
        """What python-ovs connects to, and how messages name the store."""
        return ",".join(self.remotes) or f"unix:{self.socket}"

    @property
    def database(self) -> Path:
        return self.state_dir / "vmnet.db"

    @property
    def log(self) -> Path:
        return self.state_dir / "vmnetdb.log"

    @property
    def lock(self) -> Path:
        return self.state_dir / "vmnetdb.lock"

    @property
    def socket(self) -> Path:
        return self.run_dir / "vmnetdb.sock"

    @property
    def control(self) -> Path:
        """ovsdb-server's own control socket (``ovs-appctl -t``)."""
        return self.run_dir / "vmnetdb.ctl"

    @property
    def pidfile(self) -> Path:
        return self.run_dir / "vmnetdb.pid"


def _check_remote(remote: str) -> None:
    if "," in remote or not remote.startswith(SCHEMES):
        raise ConfigError(
            f"store remote {remote!r} is none of unix:PATH, tcp:ADDRESS:PORT, ssl:ADDRESS:PORT",
            "correct [store] remotes; list a cluster's members one by one",
        )
