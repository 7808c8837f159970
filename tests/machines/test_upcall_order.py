"""First frames through an Open vSwitch in the kernel: let go as they come, some overtake others; in upcall order, none does."""

import json
from pathlib import Path

import pytest

from vmnet.lab import lab_up

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(1800)]
PYTHON = "/opt/vmnet/.venv/bin/python"
SCRIPT = Path(__file__).with_name("first_frames.py")


def test_no_frame_overtakes_the_first_of_its_flow(debian12):
    with lab_up("machines-ovs", "upcalls", vms=False) as lab:
        said = lab.host("a").run([PYTHON, "-"], text=SCRIPT.read_text(), timeout=300).stdout
    found = json.loads(said.splitlines()[-1])
    print(said)
    ours, plain = found["True"], found["False"]
    assert sum(one["lost"] for one in ours + plain) == 0
    assert sum(one["overtaken"] for one in plain) > 0, "the switch did not show what is looked for"
    silent = [one for one in ours if one["overtaken"] and not one["known_late"]]
    assert not silent, silent
    assert sum(bool(one["overtaken"]) for one in ours) <= len(ours) // 10, ours
