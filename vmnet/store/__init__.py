"""State that outlives a process: migrations, their journal, bindings, in OVSDB (schema ``vmnet.ovsschema``).

Importing this package costs next to nothing; python-ovs is loaded when a store is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmnet.store.records import Binding, HostRecord, JournalEntry, MigrationRecord, join_segments
from vmnet.store.settings import StoreSettings

if TYPE_CHECKING:
    from vmnet.store.store import Store

__all__ = [
    "Binding",
    "HostRecord",
    "JournalEntry",
    "MigrationRecord",
    "Store",
    "StoreSettings",
    "join_segments",
]


def __getattr__(name: str) -> Any:
    if name == "Store":
        from vmnet.store.store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
