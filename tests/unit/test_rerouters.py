"""The rerouters that this distribution has are those it says, and say themselves what they need."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from controller_bridge.rerouters import base
from controller_bridge.rerouters.faucet import open_faucet
from controller_bridge.rerouters.faucet_file import empty
from controller_bridge.rerouters.rest import open_rest
from vmnet.errors import ConfigError

ROOT = Path(__file__).parents[2]
ENTRIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][base.GROUP]


@pytest.mark.parametrize("name", ENTRIES)
def test_each_is_there(name: str) -> None:
    module, _, function = ENTRIES[name].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("opener", [open_faucet, open_rest])
def test_one_that_needs_settings_says_which(opener: base.Opener) -> None:
    with pytest.raises(ConfigError, match=r"is missing; see docs/rerouters\.md"):
        opener({})


def test_one_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="no rerouter 'odl'"):
        base.open_rerouter("odl", {})


def test_the_empty_file_for_faucet(tmp_path: Path) -> None:
    config = tmp_path / "faucet.yaml"
    config.write_text(
        "include: [vmnet.yaml]\nvlans: {office: {vid: 100}}\n"
        "dps: {s1: {interfaces: {1: {tagged_vlans: [office], acls_in: [vmnet-s1-1, ok]}, 2: {native_vlan: office}}}}\n"
    )
    (tmp_path / "vmnet.yaml").touch()  # as `> vmnet.yaml` does
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


CONFIG = """\
include: [vmnet.yaml]
vlans: {office: {vid: 100}}
dps: {s1: {interfaces: {1: {name: up, native_vlan: office}, 2: {native_vlan: office}}}}
"""


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"file": "/etc/other.yaml"}, "does not include /etc/other.yaml; add to it:"),
        ({"config": "/nowhere/faucet.yaml"}, "cannot read /nowhere/faucet.yaml"),
        ({"hosts": {"a": {"s2": "up"}}}, "no datapath 's2'; it has s1"),
        ({"hosts": {"a": {"s1": "down"}}}, "s1 has no interface 'down'; it has 2, up"),
        ({"hosts": {"a": {"s1": "up"}, "b": {}}}, "host b: no interface given for s1"),
        ({"vlan": "guest"}, "no VLAN 'guest'; it has office"),
        ({"switches": {"s9": "unix:/x"}}, "no datapath 's9'"),
        ({"switches": {"s1": "s1"}}, "'s1' is no switch's address"),
        ({"metrics": "localhost"}, "is no address of an HTTP service"),
        ({"pidfile": "/run/faucet.pid"}, "has no pidfile; known are"),
    ],
)
def test_faucets_settings_that_do_not_fit(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    (tmp_path / "faucet.yaml").write_text(CONFIG)
    (tmp_path / "vmnet.yaml").write_text("acls: {}\n")
    known = {
        "config": str(tmp_path / "faucet.yaml"),
        "file": str(tmp_path / "vmnet.yaml"),
        "metrics": "http://127.0.0.1:9302",
        "hosts": {"a": {"s1": "up"}, "b": {"s1": 2}},
    }
    open_faucet(known)
    with pytest.raises(ConfigError, match=says) as caught:
        open_faucet(known | more)
    assert "\n" not in str(caught.value)
