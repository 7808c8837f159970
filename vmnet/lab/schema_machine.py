"""What a topology says of a machine."""

from __future__ import annotations

from vmnet.lab.reader import Reader
from vmnet.lab.topology import Machine

KEYS = ("release", "vcpus", "memory")


def of_host(reader: Reader) -> Machine | None:
    """A host's ``kind``, and the keys beside it. Raises ConfigError."""
    if reader.at("kind").choice(("namespace", "machine"), "namespace") == "machine":
        return machine(reader)
    for key in KEYS:
        if reader.has(key):
            raise reader.at(key).fail("is for hosts of kind: machine only")
    return None


def of_switch(reader: Reader) -> Machine | None:
    """A switch's ``machine``, whose keys are below it: its ``kind`` is the bridge's. Raises ConfigError."""
    if not reader.has("machine"):
        return None
    if reader.at("kind").value != "ovs":
        raise reader.at("machine").fail("needs kind: ovs")
    if reader.has("access"):
        raise reader.at("access").fail("is for namespaces: clients do not come and go at a machine")
    inside = reader.at("machine")
    inside.mapping(KEYS)
    return machine(inside)


def machine(reader: Reader) -> Machine:
    release = reader.at("release").integer(12, 13, 12)
    return Machine(
        13 if release == 13 else 12,
        reader.at("vcpus").integer(1, 64, 1),
        reader.at("memory").integer(768, 1 << 20, 1536),
    )
