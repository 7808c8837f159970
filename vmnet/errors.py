"""Errors a person can act on: one line naming the cause, one saying what to do, one exit code."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every vmnet command (documented in docs/exit-codes.md)."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    CONFIG = 3
    NOT_FOUND = 4
    UNAVAILABLE = 5
    REFUSED = 6
    ROLLED_BACK = 7
    NOT_CLEAN = 8
    TIMEOUT = 9
    PEER = 10
    LAB = 11
    STALE = 12
    ABORTED = 130


class VmnetError(Exception):
    """A failure with a cause for people and an exit code for machines.

    ``message`` is one line that names the cause; ``hint`` (may be empty) says what to do about it.
    """

    code: ExitCode = ExitCode.INTERNAL

    def __init__(self, message: str, hint: str = "", code: ExitCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ConfigError(VmnetError):
    code = ExitCode.CONFIG


class NotFoundError(VmnetError):
    code = ExitCode.NOT_FOUND


class UnavailableError(VmnetError):
    code = ExitCode.UNAVAILABLE


class RefusedError(VmnetError):
    code = ExitCode.REFUSED


class WaitTimeoutError(VmnetError):
    """A bounded wait ran out; the message says what was waited for."""

    code = ExitCode.TIMEOUT


class PeerError(VmnetError):
    code = ExitCode.PEER


class LabError(VmnetError):
    code = ExitCode.LAB


class StaleGenerationError(VmnetError):
    code = ExitCode.STALE
