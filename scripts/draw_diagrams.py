#!/usr/bin/env python3
"""Redraw the state diagrams in docs/architecture.md from the transition table: ``.venv/bin/python scripts/draw_diagrams.py``."""

from __future__ import annotations

import re
from pathlib import Path

from vmnet.machine import Role, mermaid

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "architecture.md"


def redrawn(text: str) -> str:
    """The text with what is between each role's marks replaced. ValueError when the marks of a role are not there."""
    for role in Role:
        begin, end = f"<!-- diagram {role.value} -->\n", "<!-- end -->"
        parts = re.split(f"({re.escape(begin)}).*?({re.escape(end)})", text, flags=re.DOTALL)
        if len(parts) != 4:
            raise ValueError(f"not exactly one place for the diagram of the {role.value}")
        text = f"{parts[0]}{begin}```mermaid\n{mermaid(role)}\n```\n{end}{parts[3]}"
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(redrawn(DOCUMENT.read_text()))
