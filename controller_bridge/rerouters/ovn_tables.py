"""OVN's tables as the rerouter ``ovn`` reads and writes them: each function is work for one look at, or one change of, a replica."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from controller_bridge.rerouters.ovn_plan import Change, Place, Port, Values
from vmnet.store.job import Db

Decide = Callable[[Port], Change]
NORTHBOUND: Final = {
    "Logical_Switch_Port": ("name", "type", "addresses", "dynamic_addresses", "options", "external_ids"),
    "NB_Global": ("nb_cfg",),
}
SOUTHBOUND: Final = {
    "Port_Binding": ("logical_port", "chassis", "additional_chassis"),
    "Chassis": ("name",),
    "Chassis_Private": ("name", "nb_cfg"),
}


def ports(db: Db) -> list[Port]:
    return [
        Port(
            row.name, row.type, (*row.addresses, *row.dynamic_addresses), dict(row.options), dict(row.external_ids)
        )
        for row in db.rows("Logical_Switch_Port")
    ]  # fmt: skip


def change(db: Db, ports: Sequence[Port], decide: Decide) -> list[str]:
    """Only the keys that differ, and only if the ports are still as they were read. The ports' names."""
    rows = {row.name: row for row in db.rows("Logical_Switch_Port")}
    changes = [decide(one) for one in ports]  # all of them before the first is made: one may be refused
    for port, change in zip(ports, changes, strict=True):
        _set(db, rows[port.name], "options", port.options, change.options)
        _set(db, rows[port.name], "external_ids", port.external_ids, change.external_ids)
    return [one.name for one in ports]


def _set(db: Db, row: Any, column: str, there: Mapping[str, str], wanted: Values) -> None:
    differ = {key: value for key, value in wanted.items() if there.get(key) != value}
    if not differ:
        return
    db.changed = True
    row.verify(column)
    for key, value in differ.items():
        if value is None:
            row.delkey(column, key)
        else:
            row.setkey(column, key, value)


def places(db: Db) -> dict[str, Place]:
    return {
        row.logical_port: Place(
            row.chassis[0].name if row.chassis else "", frozenset(one.name for one in row.additional_chassis)
        )
        for row in db.rows("Port_Binding")
    }


def confirmed(db: Db) -> dict[str, int]:
    return {row.name: row.nb_cfg for row in db.rows("Chassis_Private")}


def next_configuration(db: Db) -> int:
    row = db.rows("NB_Global")[0]
    row.verify("nb_cfg")
    wanted = int(row.nb_cfg) + 1
    db.set(row, nb_cfg=wanted)
    return wanted
