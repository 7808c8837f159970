"""Errors as JSON objects: what the daemon's socket and the peers' connections have in common."""

from __future__ import annotations

import json
from typing import Any

from vmnet.errors import (
    ConfigError,
    ExitCode,
    LabError,
    NotFoundError,
    PeerError,
    RefusedError,
    StaleGenerationError,
    UnavailableError,
    VmnetError,
    WaitTimeoutError,
)

MAX_TEXT = 2000

_CLASSES: dict[ExitCode, type[VmnetError]] = {
    kind.code: kind
    for kind in (
        ConfigError,
        LabError,
        NotFoundError,
        PeerError,
        RefusedError,
        StaleGenerationError,
        UnavailableError,
        WaitTimeoutError,
    )
}


def error_to_dict(error: VmnetError) -> dict[str, Any]:
    """``{"code": int, "message": str, "hint": str}``, each text one bounded line."""
    return {"code": int(error.code), "message": one_line(error.message), "hint": one_line(error.hint)}


def error_from_dict(raw: object) -> VmnetError:
    """The error that was sent, as the class of its code; garbage becomes an INTERNAL error. Never raises."""
    fields = raw if isinstance(raw, dict) else {}
    code = fields.get("code")
    known = ExitCode(code) if type(code) is int and code in set(ExitCode) else ExitCode.INTERNAL
    message = one_line(fields.get("message")) or "failed without saying why"
    kind = _CLASSES.get(known, VmnetError)
    return kind(message, one_line(fields.get("hint")), ExitCode.INTERNAL if known is ExitCode.OK else known)


def decode_object(data: bytes) -> dict[str, Any]:
    """Parse untrusted bytes as one JSON object. Raises ValueError, whatever is wrong with them."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def one_line(text: object) -> str:
    """A text from outside, fit for a log or a terminal: one line, printable, at most MAX_TEXT characters."""
    if not isinstance(text, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in text[:MAX_TEXT]).strip()
