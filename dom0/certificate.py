"""This host's own certificate and key: whether peers will go on believing them, and whether the key is this host's alone."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from typing import Final

from vmnet.config import Tls
from vmnet.errors import VmnetError

SOON_DAYS: Final = 30
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def problems(tls: Tls, now: datetime | None = None) -> list[str]:
    """What has to be done about them, each in a sentence; empty without TLS. Reads both files: call it in a thread.

    ``now``: UTC; None: the clock's.
    """
    if tls.plain:
        return []
    from vmnet import pki, pki_revoked  # what it needs takes a quarter of a second to load

    found = []
    try:
        expires = pki.load_certificate(tls.certificate).not_valid_after_utc
        days = (expires - (now or datetime.now(UTC))).days
        if days < SOON_DAYS:
            when = f"expires in {days} days" if days >= 0 else f"has expired on {expires:%Y-%m-%d}"
            found.append(f"{tls.certificate} {when}: {pki.RENEW}, and copy the files here")
        mode = stat.S_IMODE(tls.key.stat().st_mode)
        if mode & _OTHERS:
            found.append(
                f"{tls.key} can be read by others than its owner (mode {mode:o}): chmod 600 {tls.key}"
            )
    except (VmnetError, OSError) as error:
        found.append(f"{tls.certificate} or {tls.key} cannot be read: {error}")
    try:
        pki_revoked.serials(tls.crl, tls.ca)
    except VmnetError as error:
        found.append(str(error))
    return found
