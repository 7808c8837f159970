"""Where a VM is defined (``virsh define``) after a migration. Pure but for libvirt's numbers."""

from __future__ import annotations

from dataclasses import dataclass

import libvirt


@dataclass(frozen=True)
class Definition:
    """``persistent``: whether the VM is defined at its new host; None: if it was at its old one.

    ``keep_source``: at the old one it stays defined, too.
    """

    persistent: bool | None = None
    keep_source: bool = False

    def at_destination(self, was_persistent: bool) -> bool:
        return was_persistent if self.persistent is None else self.persistent

    def flags(self, was_persistent: bool) -> int:
        """Of virDomainMigrateToURI3. A definition goes only if there is another one: else a VM that is shut off would be no more."""
        if not self.at_destination(was_persistent):
            return 0
        goes = was_persistent and not self.keep_source
        return int(libvirt.VIR_MIGRATE_PERSIST_DEST | (libvirt.VIR_MIGRATE_UNDEFINE_SOURCE if goes else 0))
