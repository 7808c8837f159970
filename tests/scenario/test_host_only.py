"""A VM with an interface on a bridge that is no LAN (host-only, as virbr0 is) beside one that is: neither delays the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import kit
import pytest

from vmnet.lab import Lab, lab_up

pytestmark = kit.LAB
TOPOLOGY = """
hosts:
  a:
    addresses: {br0: [10.0.0.1/24], hostonly: [10.8.0.1/24]}
    bridges: {br0: {ports: [up0]}, hostonly: {}}
  b:
    addresses: {br0: [10.0.0.2/24], hostonly: [10.8.0.1/24]}
    bridges: {br0: {ports: [up0]}, hostonly: {}}
clients:
  client: {addresses: {eth0: [10.0.0.100/24]}}
switches:
  core: {}
links:
  - {ends: ["a:up0", "core:a"]}
  - {ends: ["b:up0", "core:b"]}
  - {ends: ["client:eth0", "core:client"], mtu: 1500}
vms:
  vm1:
    host: a
    interfaces:
      - {mac: "52:54:00:00:00:01", addresses: [10.0.0.10/24]}
      - {bridge: hostonly, mac: "52:54:00:00:00:02", addresses: [10.8.0.10/24]}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file: Path = tmp_path_factory.mktemp("topology") / "host-only.yaml"
    file.write_text(TOPOLOGY)
    with lab_up(str(file), "labhostonly") as made:
        yield made


@pytest.mark.parametrize("move", [kit.migrate, kit.virsh_migrate], ids=["vmnet", "hooks"])
def test_both_interfaces_move(lab: Lab, move: object) -> None:
    source = kit.where(lab)
    with kit.traffic(lab, kit.address(lab), 500) as result:
        done = move(lab)  # type: ignore[operator]
        assert done.returncode == 0, done.stdout[-500:] + done.stderr
    kit.settled(lab)
    assert (result["lost"], result["reordered"]) == (0, 0)
    verdict = kit.last_verdict(source)
    assert verdict["clean"] and verdict["ordered"], verdict
    here = kit.where(lab)
    assert here is not source
    assert here.run(["busybox", "ping", "-c1", "-W3", "10.8.0.10"], check=False).returncode == 0
