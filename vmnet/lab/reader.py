"""Reading a YAML document key by key; every complaint names the path of the bad key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_interface
from typing import Any, TypeVar

from vmnet.errors import ConfigError

T = TypeVar("T")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Reader:
    """A value and where it is in the file. Every method raises ConfigError with that path."""

    def __init__(self, value: Any, path: str) -> None:
        self.value = value
        self.path = path

    def fail(self, complaint: str) -> ConfigError:
        return ConfigError(f"topology: {self.path or 'the file'} {complaint}")

    def mapping(self, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """The value as a mapping, with no other than the given keys. Nothing at all is an empty mapping."""
        found = {} if self.value is None else self.value
        if not isinstance(found, dict):
            raise self.fail("must be a mapping")
        known = None if keys is None else sorted(keys)
        for key in found:
            if known is not None and key not in known:
                raise self.at(key).fail(f"is not known here; known: {', '.join(known)}")
        return {str(key): value for key, value in found.items()}

    def at(self, key: object) -> Reader:
        path = f"{self.path}[{key}]" if isinstance(key, int) else f"{self.path}.{key}".lstrip(".")
        inside = self.value if isinstance(self.value, dict) else {}
        return Reader(inside.get(key), path)

    def has(self, key: str) -> bool:
        """Whether the mapping has that key, be it with nothing behind it."""
        return isinstance(self.value, dict) and key in self.value

    def items(self) -> list[tuple[str, Reader]]:
        """Name and value of each entry of a mapping."""
        return [
            (key, Reader(value, f"{self.path}.{key}".lstrip("."))) for key, value in self.mapping().items()
        ]

    def each(self) -> list[Reader]:
        """The elements of a list. Nothing at all is an empty list."""
        found = [] if self.value is None else self.value
        if not isinstance(found, list):
            raise self.fail("must be a list")
        return [Reader(value, f"{self.path}[{n}]") for n, value in enumerate(found)]

    def text(self, pattern: str = r".+", default: str | None = None) -> str:
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, str) or not re.fullmatch(pattern, self.value):
            raise self.fail(
                "is missing" if self.value is None else f"must match {pattern}, is {self.value!r}"
            )
        return self.value

    def choice(self, allowed: tuple[str, ...], default: str) -> str:
        value = default if self.value is None else self.value
        if value not in allowed:
            raise self.fail(f"must be one of {', '.join(allowed)}, is {value!r}")
        return str(value)

    def integer(self, low: int, high: int, default: int) -> int:
        value = default if self.value is None else self.value
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.fail(f"must be a whole number from {low} to {high}, is {value!r}")
        return value

    def flag(self, default: bool) -> bool:
        value = default if self.value is None else self.value
        if not isinstance(value, bool):
            raise self.fail(f"must be true or false, is {value!r}")
        return value

    def mac(self, default: str) -> str:
        value = self.text(default=default).lower()
        if not _MAC.fullmatch(value) or int(value[1], 16) & 1:
            raise self.fail(f"must be a unicast MAC address such as 52:54:00:00:00:01, is {value!r}")
        return value

    def interface(self) -> str:
        """An address with its prefix length."""
        if "/" not in str(self.value):
            raise self.fail(f"must be an address with a prefix length such as 10.0.0.1/24, is {self.value!r}")
        return str(self._parsed(ip_interface, "an address with a prefix length such as 10.0.0.1/24"))

    def interface4(self) -> str:
        """An IPv4 address with its prefix length."""
        found = self.interface()
        if ":" in found:
            raise self.fail(f"must be IPv4, is {found!r}")
        return found

    def address(self) -> str:
        return str(self._parsed(ip_address, "an address such as 10.0.0.1"))

    def _parsed(self, parse: Callable[[str], T], wanted: str) -> T:
        try:
            return parse(str(self.value))
        except ValueError:
            raise self.fail(f"must be {wanted}, is {self.value!r}") from None
