"""Names of a router's namespace and devices on a host: recognisable as ours, the same whoever makes them, at most 15 bytes."""

from __future__ import annotations

import hashlib
import re
from typing import Final

NAMESPACE_PREFIX: Final = "vmnet-"
_PORT = re.compile(r"vmr[0-9a-f]{6}\.\d{1,3}\Z")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")


def namespace(vm_name: str, vm: str) -> str:
    """For people: ``ip netns exec vmnet-vr1 ip route``. A VM with an odd name (``vm``: its uuid) gets its uuid."""
    return NAMESPACE_PREFIX + (vm_name if _PLAIN.match(vm_name) else vm)


def ports(vm: str) -> str:
    """How the names of a router's ports begin; ``vm``: its uuid."""
    return f"vmr{hashlib.sha256(vm.encode()).hexdigest()[:6]}."


def port(vm: str, ifindex: int) -> str:
    """The host's end of the veth to the router's interface ``ifindex``."""
    return f"{ports(vm)}{ifindex}"


def is_port(device: str) -> bool:
    return _PORT.match(device) is not None
