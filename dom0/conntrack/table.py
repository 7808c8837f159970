"""The connection tracking table of this host's kernel: read by address, added to, and taken from. Blocks."""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dom0.conntrack.entry import Entry, Key, create, delete, list_about, list_all, parse
from dom0.fib.dump import answers
from dom0.fib.kernel import Failure, Kernel, open_socket
from dom0.fib.message import INET, INET6

_NETLINK_NETFILTER: Final = 12
_SYSCTL = Path("/proc/sys/net/netfilter")
_FILLED: Final = 0.9
"""What a peer sends leaves a tenth of the table to the host."""


@dataclass(frozen=True)
class Loaded:
    """``made``: they were not there before, so to remove them is to undo it. ``refused``: how many the kernel would not have."""

    made: list[Key] = field(default_factory=list)
    replaced: int = 0
    refused: int = 0
    reason: str = ""


def is_used() -> bool:
    """Whether the kernel can track connections now. To ask so loads no module."""
    return _sysctl("nf_conntrack_max") > 0


def count() -> int:
    """Entries in the table; 0 also where the kernel tracks no connections."""
    return _sysctl("nf_conntrack_count")


def room() -> int:
    """How many more a peer may add; 0 where the kernel tracks no connections."""
    return max(0, int(_sysctl("nf_conntrack_max") * _FILLED) - count())


def _sysctl(name: str) -> int:
    try:
        return int((_SYSCTL / name).read_text())
    except (OSError, ValueError):
        return 0


def about(addresses: Collection[bytes], most: int) -> list[Entry]:
    """Those that have one of ``addresses`` (packed) at one end, at most ``most``. OSError or MalformedError if they cannot be read."""
    found: dict[Key, Entry] = {}
    requests = [list_about(one, as_source) for one in addresses for as_source in (True, False)]
    for entry in _entries(requests, most):
        found[entry.key] = entry
    return list(found.values())


def first(most: int, families: Sequence[int] = (INET, INET6)) -> list[Entry]:
    """The first ``most`` of those of ``families``. OSError or MalformedError if they cannot be read."""
    return list(_entries([list_all(one) for one in families], most))


def _entries(requests: Sequence[bytes], most: int) -> Iterator[Entry]:
    with contextlib.closing(open_socket(None, _NETLINK_NETFILTER)) as kernel:
        pieces = (piece for request in requests for piece in answers(kernel, request))
        for message in itertools.islice(itertools.chain.from_iterable(pieces), most):
            yield parse(message)


def load(entries: Sequence[Entry], replace: bool = True) -> Loaded:
    """Add them. One that is there is replaced: it is of an earlier stay of the VM, or of a packet seen without its beginning.

    ``replace`` False: it stays.
    """
    with contextlib.closing(Kernel(None, _NETLINK_NETFILTER)) as kernel:
        requests = {create(one): one for one in entries}
        failures = {one.request: one for one in _failed(kernel, list(requests))}
        found = [requests[one] for one, failure in failures.items() if failure.errno == errno.EEXIST]
        there = found if replace else []
        # an entry's opposite is found by its key as well, so that both orders of a connection's ends are removed
        kernel.send([delete(one.key) for one in there])
        late = _failed(kernel, [create(one) for one in there])
        refused = [one for one in failures.values() if one.errno != errno.EEXIST] + late
        made = [entry.key for request, entry in requests.items() if request not in failures]
    reason = str(refused[0]) if refused else ""
    return Loaded(made, len(there) - len(late), len(refused), reason)


def _failed(kernel: Kernel, requests: Sequence[bytes]) -> list[Failure]:
    """Each with the request as it was made: the kernel's answer has our acknowledgement flag and number in it."""
    failures = kernel.send(requests)
    by_body = {request[16:]: request for request in requests}
    return [Failure(one.errno, by_body.get(one.request[16:], one.request)) for one in failures]


def remove(keys: Sequence[Key]) -> None:
    """Those that are there."""
    with contextlib.closing(Kernel(None, _NETLINK_NETFILTER)) as kernel:
        kernel.send([delete(one) for one in keys])
