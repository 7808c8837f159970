"""Where an OpenFlow switch is reached, as Open vSwitch's tools write it: ``unix:PATH``, ``tcp:HOST[:PORT]``, ``ssl:HOST[:PORT]``."""

from __future__ import annotations

from dataclasses import dataclass

from vmnet.errors import ConfigError

PORT = 6653
"""IANA's for OpenFlow."""


@dataclass(frozen=True)
class Address:
    """``kind``: "unix" (``host`` is then the path), "tcp" or "ssl"."""

    kind: str
    host: str
    port: int = 0

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}:{host}:{self.port}"


def parse(text: str, port: int = PORT) -> Address:
    """``port``: if none is given. ConfigError if it is none."""
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest.startswith("/"):
        return Address(kind, rest)
    if kind in ("tcp", "ssl") and rest:
        host, given = _split(rest, port)
        if host and 1 <= given <= 65535:
            return Address(kind, host, given)
    raise ConfigError(
        f"{text!r} is no switch's address", "give unix:/PATH, tcp:HOST[:PORT] or ssl:HOST[:PORT]"
    )


def _split(text: str, usual: int) -> tuple[str, int]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            return "", 0
        rest = rest[1:]
    else:
        host, _, rest = text.partition(":")
    return host, int(rest) if rest.isdecimal() else (0 if rest else usual)
