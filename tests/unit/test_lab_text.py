"""The pure parts of the lab: names, configuration files, batches, XML, initramfs."""

from __future__ import annotations

import os
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from vmnet.errors import ConfigError, LabError
from vmnet.lab import hostfiles, kmod, procs, schema, toml, wiring
from vmnet.lab.cpio import Archive
from vmnet.lab.domain import Boot, domain_xml, kernel_arguments
from vmnet.lab.image import Image
from vmnet.lab.paths import LabPaths, check_name
from vmnet.lab.procs import Proc
from vmnet.lab.topology import Topology
from vmnet.lab.wait import wait_for


def built_in(name: str) -> Topology:
    return schema.parse(schema.load_document(schema.find(name)[1]))


def test_toml_is_read_back_the_same() -> None:
    tables = {
        "name": 'a "quoted" \\ word',
        "on": True,
        "n": 7,
        "list": ["x", 1],
        "t": {"b.c": {"deep": False}},
    }
    assert tomllib.loads(toml.dumps(tables)) == tables
    with pytest.raises(TypeError):
        toml.dumps({"none": None})


def test_toml_merge_lets_the_second_win() -> None:
    assert toml.merged({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}}) == {"a": {"x": 1, "y": 3}, "b": 1}


def test_host_configuration_names_every_peer() -> None:
    topology = built_in("pair")
    config = tomllib.loads(hostfiles.vmnet_toml(topology, topology.nodes["a"]))
    assert config["tls"] == {"plain": True}
    assert config["listen"] == {"address": "10.0.0.1", "tunnel_address": "10.0.0.1"}
    assert config["peers"] == {
        "b": {
            "address": "10.0.0.2",
            "libvirt_uri": "qemu+tcp://10.0.0.2/system",
            "migrate_uri": "tcp://10.0.0.2",
        }
    }
    assert config["bridges"] == {"br0": {"segment": "lan"}}


def test_hosts_differ_to_libvirt() -> None:
    topology = built_in("pair")
    a, b = (hostfiles.libvirtd_conf("lab", host) for host in topology.hosts)
    assert [line for line in a.splitlines() if "uuid" in line] != [
        line for line in b.splitlines() if "uuid" in line
    ]


def test_links_never_appear_in_the_callers_namespace() -> None:
    for line in wiring.link_lines(LabPaths("x"), built_in("routed")):
        assert line.count(" netns vmnet-x-") == 2


def test_lab_names() -> None:
    assert check_name("a-b_1") == "a-b_1"
    for bad in ("", "-a", "A", "a/b", "..", "a" * 40):
        with pytest.raises(ConfigError):
            check_name(bad)


def test_domain() -> None:
    topology = built_in("pair-ovs")
    boot = Boot("x", Image(Path("/k"), Path("/i")), "tcg", "pc-q35-7.2", Path("/log"))
    root = ET.fromstring(domain_xml(topology.vms["vm1"], boot, {"br0": "ovs"}))
    assert root.get("type") == "qemu"
    assert root.find("devices/interface/virtualport[@type='openvswitch']") is not None
    assert root.find("devices/interface/target") is None
    mtu = root.find("devices/interface/mtu")
    assert mtu is not None
    assert mtu.get("size") == "1400"


def test_a_guest_on_a_linux_bridge_computes_its_checksums_if_it_is_to() -> None:
    boot = Boot("x", Image(Path("/k"), Path("/i")), "tcg", "pc-q35-7.2", Path("/log"))
    for topology, host in (("campus", "off"), ("pair", None)):
        root = ET.fromstring(
            domain_xml(built_in(topology).vms["vm1"], boot, {"br0": "linux", "campus": "linux"})
        )
        assert root.find("devices/interface/virtualport") is None
        driver = root.find("devices/interface/driver/host")
        assert (None if driver is None else driver.get("csum")) == host


def test_kernel_arguments() -> None:
    words = kernel_arguments(built_in("routed").vms["vm1"]).split()
    assert "vmnet.if0=10.0.1.10/24,fd00:0:0:1::10/64" in words
    assert "vmnet.gw=10.0.1.254,fd00:0:0:1::fe" in words
    assert "vmnet.game=1" not in words
    assert "vmnet.game=1" in kernel_arguments(built_in("campus").vms["vm1"]).split()


def test_initramfs_is_what_cpio_reads() -> None:
    archive = Archive()
    archive.file("etc/deep/file", b"text", 0o600)
    archive.link("bin/sh", "busybox")
    archive.device("dev/null", 1, 3)
    listing = subprocess.run(
        ["cpio", "-tv"], input=archive.packed(), capture_output=True, check=True
    ).stdout.decode()
    names = [line.split()[-1] for line in listing.splitlines()]
    assert names == ["etc", "etc/deep", "etc/deep/file", "bin", "busybox", "dev", "dev/null"]
    assert archive.packed() == archive.packed()


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    needs = {
        "virtio_pci": "virtio",
        "virtio_net": "net-failover,virtio",
        "virtio": "",
        "net_failover": "failover",
    }
    for name, depends in needs.items():
        (tmp_path / f"{name}.ko").write_bytes(b"ELF\0depends=" + depends.encode() + b"\0name=x\0")
    (tmp_path / "modules.builtin").write_text("kernel/net/core/failover.ko\n")
    assert [name for name, _ in kmod.in_load_order(tmp_path)] == [
        "virtio",
        "virtio_pci",
        "net_failover",
        "virtio_net",
    ]
    (tmp_path / "virtio.ko").unlink()
    with pytest.raises(LabError, match="no module virtio"):
        kmod.in_load_order(tmp_path)


def test_a_process_is_its_pid_and_its_start() -> None:
    me = procs.running(os.getpid())
    assert me is not None
    assert me.alive
    assert not Proc(me.pid, me.start + 1).alive
    assert Proc.parse(f"7 (a) b (c) S {' '.join(['0'] * 18)} 99 0").start == 99
    with pytest.raises(ValueError, match="not a line"):
        Proc.parse("junk")


def test_our_own_namespaces_never_belong_to_a_lab() -> None:
    own = procs.namespace_of(os.getpid(), "net")
    assert procs.in_namespaces([own, None], [procs.namespace_of(1, "mnt")]) == []


def test_waiting_says_for_what() -> None:
    with pytest.raises(LabError, match="waited 0 s for the moon"):
        wait_for("the moon", lambda: None, 0)
