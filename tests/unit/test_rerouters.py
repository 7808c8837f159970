"""The rerouters that this distribution has are those it says, and say themselves what they need."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from controller_bridge.rerouters import base
from controller_bridge.rerouters.faucet_file import empty
from vmnet.errors import ConfigError

ROOT = Path(__file__).parents[2]
ENTRIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][base.GROUP]


@pytest.mark.parametrize("name", ENTRIES)
def test_each_is_there_and_wants_settings(name: str) -> None:
    module, _, function = ENTRIES[name].partition(":")
    with pytest.raises(ConfigError):
        getattr(importlib.import_module(module), function)({})


def test_one_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="no rerouter 'odl'"):
        base.open_rerouter("odl", {})


def test_the_empty_file_for_faucet(tmp_path: Path) -> None:
    config = tmp_path / "faucet.yaml"
    config.write_text(
        "include: [vmnet.yaml]\nvlans: {office: {vid: 100}}\n"
        "dps: {s1: {interfaces: {1: {tagged_vlans: [office], acls_in: [vmnet-s1-1, ok]}, 2: {native_vlan: office}}}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "controller_bridge.rerouters.faucet_file", str(config), "office"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.stderr == ""
    assert done.stdout == empty(config, "office")
    assert done.stdout.endswith(
        'acls:\n  vmnet-s1-1:\n  - rule: {dl_dst: "00:00:00:00:00:00", vlan_vid: 100, actions: {allow: 0}}\n'
    )
