"""Whom a VM speaks with, and how much: measured on its taps for a while, on request."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from dom0.claim import mac_bytes
from dom0.context import Context
from dom0.dataplane.traffic_counter import TrafficCounter
from dom0.dataplane.traffic_program import Counted
from vmnet import domain_xml
from vmnet.errors import ExitCode, RefusedError, UnavailableError

MOST_TOLD = 64
"""Addresses in an answer: those with the most traffic. All others are one sum."""
_MOST_S = 60.0
_MOST_TAPS = 64
_MOST_AT_ONCE = 8


class Traffic:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._measuring = 0

    async def measure(self, name: str, seconds: object) -> dict[str, Any]:
        """Bytes a second between a VM here and each address, both ways. RefusedError if it cannot be measured."""
        if type(seconds) not in (int, float) or not 0 < seconds <= _MOST_S:  # type: ignore[operator]
            raise RefusedError(f"'seconds' is no number from 0 to {_MOST_S:g}", code=ExitCode.USAGE)
        window_s = float(seconds)  # type: ignore[arg-type]
        if self._measuring >= _MOST_AT_ONCE:
            raise UnavailableError(f"traffic is being measured {_MOST_AT_ONCE} times already", "try again")
        self._measuring += 1
        try:
            return await self._measure(name, window_s)
        finally:
            self._measuring -= 1

    async def _measure(self, name: str, window_s: float) -> dict[str, Any]:
        info = domain_xml.parse((await self._context.domains.find(name)).xml.encode())
        taps = {
            one.target_dev: mac_bytes(one.mac)
            for one in info.interfaces
            if one.target_dev is not None and one.mac
        }
        if not taps:
            raise RefusedError(f"VM {info.name!r} has no tap on which its traffic could be seen")
        if len(taps) > _MOST_TAPS:
            raise RefusedError(f"VM {info.name!r} has more than {_MOST_TAPS} taps")
        try:
            counter = await asyncio.to_thread(TrafficCounter, taps)
        except OSError as error:
            raise UnavailableError(f"cannot count the traffic of VM {info.name!r}: {error}") from None
        began = time.monotonic()
        try:
            await asyncio.sleep(window_s)
            found = await asyncio.to_thread(counter.read)
            took_s = time.monotonic() - began
        finally:
            await asyncio.to_thread(counter.close)
        return {"vm": info.name, "uuid": info.uuid, "seconds": took_s, **told(found, took_s)}


def told(found: list[Counted], seconds: float) -> dict[str, Any]:
    """The answer's figures, of what was counted in so many seconds; the most first. Pure."""
    named = [(text, one) for one in found if (text := _text(one)) and one.bytes]
    other = sum(one.bytes for one in found) - sum(one.bytes for _text, one in named[:MOST_TOLD])
    return {
        "addresses": [
            {"address": text, "mac": one.mac.hex(":"), "bytes_per_s": one.bytes / seconds}
            for text, one in named[:MOST_TOLD]
        ],
        "other_bytes_per_s": other / seconds,
    }


def _text(one: Counted) -> str:
    """ "" for what is nobody's."""
    if isinstance(one.address, bytes):
        return one.address.hex(":")
    if (
        one.address is None
        or one.address.is_multicast
        or one.address.is_unspecified
        or one.address.is_loopback
    ):
        return ""
    return "" if str(one.address) == "255.255.255.255" else str(one.address)
