"""pip's settings of this computer for the pip inside an image's tree."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

_TAKEN = ("index-url", "extra-index-url", "trusted-host", "proxy", "default-timeout", "timeout")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def parse(listing: str) -> dict[str, str]:
    """From ``pip config list``: setting -> value. The environment wins over files."""
    found: dict[str, str] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        scope, _, name = key.rpartition(".")
        if scope and (name not in found or scope.startswith(":env:")):
            found[name] = " ".join(shlex.split(value))
    return found


def shell(settings: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """Lines that set the same for a shell. Indexes in files of this computer are not there inside, and are left out."""
    lines = []
    for name in _TAKEN:
        value = " ".join(word for word in settings.get(name, "").split() if not word.startswith("file:"))
        if value:
            lines.append(f"PIP_{name.upper().replace('-', '_')}={shlex.quote(value)}")
    lines += [f"{name}={shlex.quote(environment[name])}" for name in _PROXIES if environment.get(name)]
    return "\n".join(lines) + "\n"


def certificate(settings: Mapping[str, str]) -> Path | None:
    """The file of CAs that pip trusts here, if it is set."""
    path = Path(settings["cert"]) if "cert" in settings else None
    return path if path is not None and path.is_file() else None
