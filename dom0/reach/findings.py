"""Rows of `vmnet doctor` about a peer, from what the probes observed. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

FIREWALL_HINT = "docs/install.md, Firewall"


class Reach(Enum):
    """What became of a TCP connection request, or of frames in the tunnel."""

    OPEN = "answers"
    REFUSED = "refused: nothing listens there"
    REJECTED = "rejected: a firewall there rejects it, or the host is down"
    SILENT = "no answer: a firewall drops it, or the host is down"
    NO_ROUTE = "no route"
    FORBIDDEN = "this host's own firewall forbids it"
    UNKNOWN = "not tested"

    @property
    def closed(self) -> bool:
        """Whether no program on the peer could be reached."""
        return self not in (Reach.OPEN, Reach.REFUSED, Reach.UNKNOWN)


_BY_ERRNO = {
    errno.ECONNREFUSED: Reach.REFUSED,
    errno.EHOSTUNREACH: Reach.REJECTED,  # also ICMP "administratively prohibited", which firewalld sends
    errno.ENETUNREACH: Reach.NO_ROUTE,
    errno.EPERM: Reach.FORBIDDEN,
    errno.EACCES: Reach.FORBIDDEN,
    errno.ETIMEDOUT: Reach.SILENT,
}


def classify(error: OSError | None) -> Reach:
    """The outcome of connect(2); ``None``: it succeeded. TimeoutError without a number is our own deadline."""
    if error is None:
        return Reach.OPEN
    if isinstance(error, TimeoutError):
        return Reach.SILENT
    return _BY_ERRNO.get(error.errno or 0, Reach.UNKNOWN)


@dataclass(frozen=True)
class Tunnel:
    """``largest_bytes``: of the frames that arrived through a VXLAN tunnel made for the test; 0: none arrived.

    ``reason``: why it was not tested, else "".
    """

    largest_bytes: int = 0
    reason: str = ""


def row(check: str, ok: bool, detail: str, *, tested: bool = True) -> dict[str, Any]:
    """``tested``: False where nothing is known to be wrong because it, or a part of it, could not be looked at."""
    return {"check": check, "ok": ok, "tested": tested, "detail": detail}


def ports(peer: str, tcp: Mapping[str, Reach], tunnel: Tunnel, udp_port: int) -> dict[str, Any]:
    """Which ports towards the peer are closed. ``tcp``: by what the port is called, as "TCP 6642 (daemon)"."""
    udp = f"UDP {udp_port} (tunnel)"
    closed = [f"{name}: {reach.value}" for name, reach in tcp.items() if reach.closed]
    if not tunnel.reason and not tunnel.largest_bytes:
        closed.append(f"{udp}: no frame arrived")
    if closed:
        return row(f"ports {peer}", False, f"{'; '.join(closed)}; open them on {peer} ({FIREWALL_HINT})")
    passed = [name for name, reach in tcp.items() if reach is not Reach.UNKNOWN]
    passed += [] if tunnel.reason else [udp]
    detail = f"{', '.join(passed) or 'nothing'} can be reached"
    if tunnel.reason:
        return row(f"ports {peer}", True, f"{detail}; {udp} not tested: {tunnel.reason}", tested=False)
    return row(f"ports {peer}", True, detail)


def mtu(
    peer: str, path_bytes: int | None, tunnel: Tunnel, frame_bytes: int, outer_bytes: int
) -> dict[str, Any]:
    """Whether full-size frames of a VM pass the tunnel. ``path_bytes``: the MTU that the kernel has for the route."""
    check, needed = f"MTU {peer}", frame_bytes + outer_bytes
    if 0 < tunnel.largest_bytes < frame_bytes:
        return row(
            check,
            False,
            f"frames of {frame_bytes} bytes do not arrive, small ones do: the route's MTU here is {path_bytes}, "
            "and something on the way carries less; give every device and switch on the way the same MTU",
        )
    if path_bytes is None:
        return row(check, True, "unknown: no route", tested=False)
    if path_bytes < needed:
        return row(
            check,
            True,
            f"{path_bytes}: full-size frames are fragmented in the tunnel, which costs time ({needed} avoids it)",
        )
    return row(check, True, f"{path_bytes}: full-size frames pass the tunnel in one piece")


_LIBVIRT_HINTS = (
    ("CA certificate", "run `vmnet pki libvirt` on this host"),
    ("usage does not permit", "an older vmnet made the certificate: `vmnet pki show` says how to renew it"),
    ("does not match the hostname", "the peer's certificate lacks this address: `vmnet pki host NAME DIR --address IP --force`"),
    ("not trusted", "the hosts' certificates are of different CAs: `vmnet pki show` on both"),
    ("known issuer", "the hosts' certificates are of different CAs: `vmnet pki show` on both"),
    ("Host key verification", "log in once as root: `ssh root@ADDRESS true`"),
    ("Permission denied", "the peer does not accept root's ssh key: `ssh-copy-id root@ADDRESS`"),
    ("refused", "on the peer: `systemctl enable --now libvirtd-tls.socket` (docs/install.md, step 4)"),
)  # fmt: skip


def libvirt_hint(error: str, uri: str) -> str:
    """What to do about libvirt's error message; "" if nothing is known about it."""
    for part, hint in _LIBVIRT_HINTS:
        if part in error:
            return (
                hint if "tls" in uri or "libvirtd-tls" not in hint else "is libvirtd's socket there enabled?"
            )
    return ""


def input_policy(ruleset: Mapping[str, Any]) -> list[str]:
    """Chains of `nft -j list ruleset` at the hook "input" that drop or reject what no rule of theirs accepts."""
    objects = ruleset.get("nftables")
    chains = [one["chain"] for one in objects if "chain" in one] if isinstance(objects, list) else []
    rules = [one["rule"] for one in objects if "rule" in one] if isinstance(objects, list) else []
    found = []
    for chain in chains:
        if chain.get("hook") != "input":
            continue
        own = [rule for rule in rules if _place(rule, "chain") == _place(chain, "name")]
        if chain.get("policy") == "drop" or (own and _ends_all(own[-1].get("expr", []))):
            found.append(" ".join(map(str, _place(chain, "name"))))
    return found


def _place(thing: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    return thing.get("family"), thing.get("table"), thing.get(name)


def _ends_all(expressions: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a rule drops or rejects without any condition."""
    words = [word for one in expressions for word in one]
    return (
        bool(words) and words[-1] in ("drop", "reject") and set(words) <= {"drop", "reject", "counter", "log"}
    )


def firewall(chains: list[str] | None) -> dict[str, Any]:
    """``None``: the rules could not be read. What is closed shows in the peers' own `vmnet doctor`."""
    if chains is None:
        unread = "nftables' rules of this host could not be read: install nftables to have them looked at"
        return row("firewall", True, unread, tested=False)
    if not chains:
        return row("firewall", True, "nftables on this host drops nothing by default")
    return row(
        "firewall",
        True,
        f"nftables on this host drops what no rule accepts ({', '.join(chains)}): "
        f"`vmnet doctor` on each peer says which port is closed; {FIREWALL_HINT}",
    )
