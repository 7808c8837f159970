"""Named network namespaces, as ``ip netns`` has them (ip-netns(8)): made, entered for one call, removed."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
FOLDER = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_LIMIT_S = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def exists(name: str) -> bool:
    return (FOLDER / name).exists()


def names(prefix: str) -> list[str]:
    """Those that begin with ``prefix``."""
    return sorted(one.name for one in FOLDER.glob(f"{prefix}*")) if FOLDER.is_dir() else []


def create(name: str) -> None:
    """OSError if it cannot be made; nothing happens if it is there."""
    if not exists(name):
        _ip_netns("add", name)


def delete(name: str) -> None:
    """Its devices go with it. Nothing happens if there is none."""
    if exists(name):
        _ip_netns("delete", name)


def _ip_netns(verb: str, name: str) -> None:
    done = subprocess.run(
        ["ip", "netns", verb, name], capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    if done.returncode:
        raise OSError(f"ip netns {verb} {name}: {done.stderr.strip()}")


def call(name: str, function: Callable[[], T]) -> T:
    """Run ``function`` in the namespace (``name``: also a path); sockets it opens stay there. OSError if there is none."""
    descriptor = os.open(FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)

    def enter() -> None:
        _check(_libc.setns(descriptor, _CLONE_NEWNET), f"cannot enter network namespace {name}")

    try:
        return _in_thread(enter, function, f"netns {name}")
    finally:
        os.close(descriptor)


def call_apart(function: Callable[[], T]) -> T:
    """Run ``function`` in a new network namespace, which goes with what it leaves open. OSError if none can be made."""

    def leave() -> None:
        _check(_libc.unshare(_CLONE_NEWNET), "cannot make a network namespace")

    return _in_thread(leave, function, "netns of its own")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _in_thread(enter: Callable[[], None], function: Callable[[], T], name: str) -> T:
    """A namespace is a thread's, and this thread ends with the call."""
    result: list[T] = []
    failure: list[BaseException] = []

    def inside() -> None:
        try:
            enter()
            result.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=inside, name=name)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
