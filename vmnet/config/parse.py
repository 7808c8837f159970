"""From the text of vmnet.toml to a Config: one walk over the dataclasses, which collects every problem."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vmnet.config.model import Config
from vmnet.errors import ConfigError

DEFAULT_PATH = Path("/etc/vmnet/vmnet.toml")
MAX_BYTES = 1_048_576


def load(path: Path | None = None) -> Config:
    """Read a configuration file; None means /etc/vmnet/vmnet.toml. A missing file means all defaults.

    Raises ConfigError with one line, ``file: section.key: what is wrong; what to do``.
    """
    path = path or DEFAULT_PATH
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path}: is larger than {MAX_BYTES} bytes", "this is no vmnet configuration")
        return parse(data.decode(), str(path))
    except FileNotFoundError:
        return Config()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8", "save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "make it readable, or name another file") from None


def parse(text: str, source: str) -> Config:
    """Turn the text of a configuration into a Config; ``source`` names it in errors. Raises ConfigError."""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: a number of 5000 digits
        cause = "nested too deeply" if isinstance(error, RecursionError) else f"not TOML: {error}"
        raise ConfigError(f"{source}: {cause}", "correct the file") from None
    problems: list[str] = []
    config = _section(Config, raw, "", problems)
    if not problems:
        problems = list(_contradictions(config))
    if problems:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        what, _, advice = problems[0].partition("; ")
        raise ConfigError(f"{source}: {what}", advice + more)
    assert isinstance(config, Config)
    return config


def _section(kind: Any, raw: Any, where: str, problems: list[str]) -> Any:
    """Build dataclass ``kind`` from a table; None if something is wrong (``problems`` has grown)."""
    if not isinstance(raw, dict):
        problems.append(f"{where} is not a table; write [{where}] and its settings below it")
        return None
    known = {one.name: one for one in fields(kind)}
    problems += [_unknown(_join(where, key), key, known) for key in raw if key not in known]
    values = {
        key: _field(known[key], value, _join(where, key), problems)
        for key, value in raw.items()
        if key in known
    }
    missing = [name for name, one in known.items() if _is_required(one) and name not in raw]
    problems += [f'{_join(where, name)}: is missing; add {name} = "..."' for name in missing]
    return None if problems else kind(**values)


def _is_required(one: Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _field(one: Field[Any], value: Any, where: str, problems: list[str]) -> Any:
    if "key" in one.metadata:
        return _table(one, value, where, problems)
    if "section" in one.metadata:
        return _section(one.metadata["section"], value, where, problems)
    return _checked(one.metadata["check"], value, where, problems)


def _table(one: Field[Any], raw: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(raw, dict):
        problems.append(f"{where}: is not a table; write [{where}]")
        return None
    result = {}
    for key, value in raw.items():
        name = _join(where, key)
        _checked(one.metadata["key"], key, name, problems)
        section, check = one.metadata["section"], one.metadata["check"]
        result[key] = (
            _section(section, value, name, problems) if section else _checked(check, value, name, problems)
        )
    return MappingProxyType(result)


def _checked(check: Any, value: Any, where: str, problems: list[str]) -> Any:
    try:
        return check(value)
    except ValueError as error:
        problems.append(f"{where}: {error}")
        return None


def _unknown(where: str, key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    advice = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
    return f"{where}: is not a setting; {advice}"


def _join(where: str, key: str) -> str:
    """A dotted name on one line, whatever a quoted key of the file holds."""
    shown = key if key.isprintable() and len(key) <= 80 else repr(key[:80])
    return f"{where}.{shown}" if where else shown


def _contradictions(config: Config) -> Iterable[str]:
    """What no single setting can show."""
    if config.host.name in config.peers:
        yield f"peers.{config.host.name}: is this host itself; remove it, or set host.name"
    seen: dict[tuple[str, int], str] = {}
    for name, peer in config.peers.items():
        other = seen.setdefault((peer.address, peer.port), name)
        if other != name:
            yield f"peers.{name}: has the address and port of peers.{other}; give each its own"
