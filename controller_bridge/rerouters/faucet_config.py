"""What a Faucet configuration says of the fabric: datapaths, their interfaces and VLANs. Pure; nothing in it is ever rewritten.

Merged as Faucet does (``faucet/config_parser_util.py``, ``dp_include``): a file's own top-level tables, then those of each file it
includes on top, key by key. Everything is read as text: YAML 1.1 would take ``12:34:56`` for a number, Faucet's YAML 1.2 does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from vmnet.errors import ConfigError

TABLES: Final = ("acls", "dps", "vlans")
_Loader: Final = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
Read = Callable[[Path], str]


@dataclass(frozen=True)
class Interface:
    """``native`` and ``tagged`` are VLAN ids; a stacking link carries all VLANs with a tag."""

    number: int
    name: str
    native: int | None = None
    tagged: frozenset[int] = frozenset()
    stack: bool = False
    acls: tuple[str, ...] = ()

    def tags(self, vid: int) -> bool:
        return self.stack or vid in self.tagged


@dataclass(frozen=True)
class Fabric:
    """``datapaths``: name -> number -> interface. ``vids``: of VLANs by name. ``files``: all that were read, the first on top."""

    datapaths: Mapping[str, Mapping[int, Interface]]
    vids: Mapping[str, int]
    files: tuple[Path, ...] = ()

    def interface(self, datapath: str, called: str) -> Interface:
        """By name or number. ConfigError if there is none."""
        if datapath not in self.datapaths:
            raise ConfigError(f"Faucet's configuration has no datapath {datapath!r}", _among(self.datapaths))
        found = self.datapaths[datapath]
        for one in found.values():
            if called in (one.name, str(one.number)):
                return one
        raise ConfigError(
            f"{datapath} has no interface {called!r}", _among(one.name for one in found.values())
        )

    def vid(self, called: str) -> int:
        """Of a VLAN, by name or id. ConfigError if there is none."""
        if called in self.vids:
            return self.vids[called]
        try:
            return int(called, 0)
        except ValueError:
            raise ConfigError(f"Faucet's configuration has no VLAN {called!r}", _among(self.vids)) from None


def _among(names: Any) -> str:
    return f"it has {', '.join(sorted(map(str, names))) or 'none'}"


def load(top: Path, read: Read) -> Fabric:
    """``read`` gives a file's text, or raises OSError. ConfigError if a file cannot be read or makes no sense."""
    tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    files: list[Path] = []
    _include(top, read, tables, files)
    vids = {
        str(name): _number(_table(conf).get("vid", name), f"VLAN {name}")
        for name, conf in tables["vlans"].items()
    }
    plain = Fabric({}, vids)
    found = {name: _interfaces(name, _table(conf), plain) for name, conf in tables["dps"].items()}
    return Fabric(found, vids, tuple(files))


def _include(path: Path, read: Read, tables: dict[str, dict[str, Any]], files: list[Path]) -> None:
    content = parse(_text(path, read), path)
    files.append(path)
    for name in TABLES:
        tables[name].update(_table(content.get(name)))
    for key in ("include", "include-optional"):
        for one in content.get(key) or []:
            included = resolved(path, str(one))
            if included in files:
                raise ConfigError(f"{path} includes {included} again")
            try:
                _include(included, read, tables, files)
            except ConfigError:
                if key == "include":
                    raise


def resolved(parent: Path, included: str) -> Path:
    """Where Faucet looks for a file that ``parent`` includes."""
    return (parent.parent / included).resolve()


def _text(path: Path, read: Read) -> str:
    try:
        return read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}", "is it in Faucet's configuration?") from None


def parse(text: str, path: Path) -> dict[str, Any]:
    """All scalars as text. ConfigError if it is no YAML table."""
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{path} is no YAML: {line}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} has no tables")
    return content


def _table(conf: Any) -> dict[str, Any]:
    return conf if isinstance(conf, dict) else {}


def _number(value: Any, what: str) -> int:
    try:
        return int(str(value), 0)
    except ValueError:
        raise ConfigError(f"{what}: {value!r} is no number") from None


def _interfaces(datapath: str, conf: dict[str, Any], plain: Fabric) -> dict[int, Interface]:
    """An interface's own settings come before those of its range."""
    merged: dict[int, tuple[str, dict[str, Any]]] = {}
    for key, one in _table(conf.get("interfaces")).items():
        number = _number(_table(one).get("number", key), f"{datapath}, interface {key}")
        merged[number] = (str(key), dict(_table(one)))
    for key, one in _table(conf.get("interface_ranges")).items():
        for number in _range(str(key)):
            own = merged.setdefault(number, (str(number), {}))[1]
            for name, value in _table(one).items():
                own.setdefault(name, value)
    return {number: _interface(number, key, own, plain) for number, (key, own) in merged.items()}


def _range(text: str) -> Iterator[int]:
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        yield from range(int(first), int(last or first) + 1)


def _interface(number: int, key: str, conf: dict[str, Any], plain: Fabric) -> Interface:
    native = conf.get("native_vlan")
    acls = conf.get("acls_in") or ([conf["acl_in"]] if conf.get("acl_in") else [])
    return Interface(
        number,
        str(conf.get("name", key)),
        None if native is None else plain.vid(str(native)),
        frozenset(plain.vid(str(one)) for one in conf.get("tagged_vlans") or []),
        "stack" in conf,
        tuple(str(one) for one in acls),
    )


@dataclass(frozen=True)
class Included:
    """Where in the top file's text our file is named: a copy of it can name another instead."""

    begin: int
    end: int
    text: str = field(repr=False)

    def naming(self, other: Path) -> str:
        return f'{self.text[: self.begin]}"{other}"{self.text[self.end :]}'


def included(top: Path, text: str, ours: Path) -> Included:
    """ConfigError if the file on top does not include ours itself."""
    root = yaml.compose(text, Loader=yaml.BaseLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    for key, value in pairs:
        if key.value in ("include", "include-optional") and isinstance(value, yaml.SequenceNode):
            for one in value.value:
                if resolved(top, str(one.value)) == ours:
                    return Included(one.start_mark.index, one.end_mark.index, text)
    raise ConfigError(f"{top} does not include {ours}", f"add to it:  include: [{ours}]")
