"""The key ``frr`` of a topology's clients and routers."""

from __future__ import annotations

from vmnet.lab.announce import MAX_ROUTES
from vmnet.lab.reader import Reader
from vmnet.lab.topology import Frr

DAEMONS = ("zebra", "staticd", "ospfd", "bgpd", "bfdd")
"""In the order in which they are started: the others need zebra."""


def frr(reader: Reader) -> Frr | None:
    """None when the key is missing. Raises ConfigError naming the bad key."""
    if reader.value is None:
        return None
    reader.mapping(("daemons", "config", "announce"))
    announce = reader.at("announce")
    announce.mapping(("ipv4", "ipv6"))
    return Frr(
        _daemons(reader.at("daemons")),
        reader.at("config").text(r"(?s:.*)", default=""),
        announce.at("ipv4").integer(0, MAX_ROUTES, 0),
        announce.at("ipv6").integer(0, MAX_ROUTES, 0),
    )


def _daemons(reader: Reader) -> tuple[str, ...]:
    wanted = [one.choice(DAEMONS, "") for one in reader.each()]
    if "zebra" not in wanted:
        raise reader.fail("must hold zebra: the others need it")
    return tuple(name for name in DAEMONS if name in wanted)
