"""A bench's file: valid at any time, whatever interrupts the bench."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def replace(file: Path, document: Mapping[str, Any]) -> None:
    """Replaces the file in one step."""
    new = file.with_name(file.name + ".new")
    new.write_text(json.dumps(document, indent=1) + "\n")
    new.replace(file)
