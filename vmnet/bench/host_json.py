"""What the daemon of a lab's host says, asked by the command there: a host that is a machine has no socket of its daemon outside."""

from __future__ import annotations

import json
from typing import Any

from vmnet.errors import LabError
from vmnet.lab.host import Host


def ask(host: Host, *words: str) -> dict[str, Any]:
    """The first object that ``vmnet WORDS --json`` prints there. LabError if it fails, or prints none."""
    printed = str(host.run([*host.program("vmnet"), *words, "--json"]).stdout)
    try:
        found = json.loads(printed.partition("\n")[0])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise LabError(
            f"`vmnet {' '.join(words)} --json` on {host.name} printed no object: {printed[:100]!r}"
        )
    return found
