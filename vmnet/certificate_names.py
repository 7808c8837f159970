"""What certificates of `vmnet pki` say that they are for: a URI among their names (subjectAltName, RFC 5280)."""

from __future__ import annotations

from typing import Final

URI_PREFIX: Final = "vmnet:host:"
SWITCH_URI_PREFIX: Final = "vmnet:switch:"
