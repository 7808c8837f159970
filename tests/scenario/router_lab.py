"""The lab of the router scenarios: a built-in topology with more patience in BFD.

At 3 times 100 ms a guest without KVM loses BFD sessions now and then by itself, and OSPF and BGP with them: nothing could be judged.
At 10 times 100 ms each session that goes is our doing. ``VMNET_TEST_BFD=3`` gives what the topology says.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import yaml

from vmnet.lab import Lab, lab_up

MULTIPLIER = int(os.environ.get("VMNET_TEST_BFD", "10"))


def document(topology: str) -> str:
    """The topology's YAML."""
    text = (files("vmnet.lab") / "topologies" / f"{topology}.yaml").read_text()
    assert "detect-multiplier 3" in text
    text = text.replace("detect-multiplier 3", f"detect-multiplier {MULTIPLIER}")
    document = yaml.safe_load(text)
    return str(yaml.safe_dump(document))


@contextmanager
def routed_lab(topology: str, name: str) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{topology}.yaml"
        file.write_text(document(topology))
        with lab_up(str(file), name) as lab:
            yield lab
