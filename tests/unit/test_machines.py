"""Hosts that are machines: their keys in topology files, command lines, what is put into them, the image's hash."""

import io
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest

from vmnet.errors import ConfigError, LabError
from vmnet.lab import fabric_files, schema, wiring
from vmnet.lab.domain import Boot, domain_xml
from vmnet.lab.host import guest_of, newest_q35, oldest_q35
from vmnet.lab.image import Image
from vmnet.lab.machines import build, clock, howto, identity, image, packages, pip_settings, qemu, ssh, tree
from vmnet.lab.machines.host import MachineHost
from vmnet.lab.paths import LabPaths
from vmnet.lab.topology import Machine

KEY = Path("/key")
BOOT = qemu.Boot(Path("/k"), Path("/i"), Path("/d.qcow2"), "tcg", "u-u")


def document(**changed):
    host = {"kind": "machine", "addresses": {"br0": ["10.0.0.1/24"]}, "bridges": {"br0": {"ports": ["up0"]}}}
    return {
        "hosts": {"a": {**host, **changed}},
        "switches": {"core": {}},
        "links": [{"ends": ["a:up0", "core:a"]}],
    }


def built_in(name):
    return schema.parse(schema.load_document(schema.find(name)[1]))


def test_a_machine_and_what_it_is_by_default():
    assert schema.parse(document()).nodes["a"].machine == Machine(12, 1, 1536)
    found = schema.parse(document(release=13, vcpus=2, memory=2048)).nodes["a"].machine
    assert found == Machine(13, 2, 2048)
    assert built_in("pair").nodes["a"].machine is None


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"release": 11}, r"hosts\.a\.release"),
        ({"memory": 512}, r"hosts\.a\.memory"),
        ({"kind": "vm"}, r"hosts\.a\.kind"),
        ({"kind": "namespace", "memory": 2048}, r"hosts\.a\.memory is for hosts of kind: machine only"),
        (
            {"bridges": {"br0": {"kind": "ovn", "ports": ["up0"]}}},
            "is ovn: a machine has linux or ovs bridges",
        ),
        ({"plain_checksums": ["up0"]}, r"hosts\.a\.plain_checksums is for namespaces"),
    ],
)
def test_what_a_machine_cannot_have(changed, complaint):
    with pytest.raises(ConfigError, match=complaint):
        schema.parse(document(**changed))


def test_a_machines_bridge_fits_into_its_links():
    """A virtio interface has a largest MTU, as a veth pair has not."""
    small = document()
    small["links"][0]["mtu"] = 1500
    with pytest.raises(ConfigError, match=r"hosts.a.bridges.br0.mtu is 9000, and the link at 'up0' has 1500"):
        schema.parse(small)


def test_hosts_are_all_machines_or_none():
    mixed = document()
    mixed["hosts"]["b"] = {"addresses": {"br0": ["10.0.0.2/24"]}, "bridges": {"br0": {}}}
    with pytest.raises(ConfigError, match="b is a namespace"):
        schema.parse(mixed)


def test_a_machine_has_only_so_many_links_and_no_name_twice():
    many = document()
    many["links"] += [{"ends": [f"a:p{n}", f"core:p{n}"]} for n in range(8)]
    with pytest.raises(ConfigError, match="has 9 links: a machine has at most 8"):
        schema.parse(many)
    taken = document()
    taken["links"].append({"ends": ["a:mgmt", "core:m"]})
    with pytest.raises(ConfigError, match="'mgmt'"):
        schema.parse(taken)
    bridge = document()
    bridge["hosts"]["a"]["bridges"]["mgmt"] = {}
    with pytest.raises(ConfigError, match="has the name of an interface of the machine"):
        schema.parse(bridge)


@pytest.mark.parametrize("name", ["machines", "machines-ovs", "machines-13", "machines-13-ovs"])
def test_built_in_topologies_are_pair_on_machines(name):
    topology, pair = built_in(name), built_in("pair")
    assert topology.vms == pair.vms and topology.links == pair.links
    for host in topology.hosts:
        assert host.machine == Machine(13 if "13" in name else 12)
        assert host.addresses == pair.nodes[host.name].addresses
        assert host.bridges[0].kind == ("ovs" if name.endswith("ovs") else "linux")


def test_the_router_on_machines_has_the_links_and_the_vm_of_pisa():
    topology, pisa = built_in("machines-pisa"), built_in("pisa")
    assert topology.links == pisa.links
    ours, theirs = topology.vms["vr1"].interfaces, pisa.vms["vr1"].interfaces
    assert [(one.mac, one.addresses) for one in ours] == [(one.mac, one.addresses) for one in theirs]
    for host in topology.hosts:
        assert host.machine == Machine(12)
        assert host.addresses == pisa.nodes[host.name].addresses
        assert [one.segment for one in host.bridges] == [one.segment for one in pisa.nodes[host.name].bridges]


def test_the_openflow_fabric_on_machines_is_that_of_namespaces():
    topology, pair = built_in("machines-openflow"), built_in("pair-openflow")
    names = ["s1", "s2", "s3"]
    for name in names:
        ours, theirs = topology.nodes[name], pair.nodes[name]
        assert ours.machine == Machine(12)
        assert (ours.bridges, ours.underlay) == (theirs.bridges, theirs.underlay)
    made = fabric_files.controller(topology, topology.nodes["controller"])
    assert made == fabric_files.controller(pair, pair.nodes["controller"])
    assert [host.machine for host in topology.hosts] == [Machine(12)] * 2


@pytest.mark.parametrize(
    ("switch", "complaint"),
    [
        ({"machine": {}}, r"switches.s.machine needs kind: ovs"),
        ({"kind": "ovs", "machine": {}, "access": ["p"]}, r"switches.s.access is for namespaces"),
        ({"kind": "ovs", "machine": {"release": 11}}, r"switches.s.machine.release must be .* 12 to 13"),
        ({"kind": "ovs", "machine": {"disk": 1}}, r"switches.s.machine.disk is not known"),
    ],
)
def test_what_a_switch_that_is_a_machine_cannot_have(switch, complaint):
    with pytest.raises(ConfigError, match=complaint):
        schema.parse({"switches": {"s": switch}})


def test_a_switch_that_is_a_machine_forwards_nothing_before_its_flows_are_there():
    topology = built_in("machines-openflow")
    ports = topology.ports("s1")
    text = identity.interfaces(topology.nodes["s1"], ports)
    assert "-- set-fail-mode switch secure" in text
    for port, number in topology.nodes["s1"].bridges[0].numbers.items():
        assert f"ovs_extra set interface {port} ofport_request={number}\n" in text
    assert "auto up0\niface up0 inet static\n    address 10.0.0.11/24" in text


def test_the_namespace_of_a_machine_has_wires_and_nothing_else():
    topology = built_in("machines-ovs")
    spec = topology.nodes["a"]
    lines = wiring.node_lines(topology, spec)
    assert "tuntap add dev tap0 mode tap" in lines
    assert {"link set dev up0 master wire0", "link set dev tap0 master wire0"} <= set(lines)
    assert not any("br0" in line for line in lines)
    assert wiring.address_lines(spec) == wiring.address_lines_v6(spec) == []
    assert wiring.sysctls(spec)["ipv6/conf/default/disable_ipv6"] == "1"
    assert spec.own_vswitches == ()


def test_link_ends_of_a_machine_keep_their_mac_for_the_inside():
    topology = schema.parse(document(macs={"up0": "52:54:00:00:00:77"}))
    assert not any("52:54:00:00:00:77" in line for line in wiring.link_lines(LabPaths("x"), topology))
    assert identity.interface_mac("x", topology.nodes["a"], "up0") == "52:54:00:00:00:77"


def test_qemu_goes_on_from_a_state_with_the_same_devices():
    first = qemu.argv("a", Machine(), BOOT, 0)
    later = qemu.argv("a", Machine(), qemu.Boot(**{**BOOT.__dict__, "state": Path("/s")}), 2)
    assert later[: len(first)] == first
    assert later[len(first) :] == [
        "-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=off",
        "-netdev", "tap,id=net1,ifname=tap1,script=no,downscript=no,vhost=off",
        "-incoming", "exec:cat '/s'",
    ]  # fmt: skip
    assert first.count("-device") >= 8 and "-enable-kvm" not in first


def test_qemu_has_the_machines_size_and_accelerator():
    words = qemu.argv("a", Machine(13, 2, 2048), BOOT, 0)
    assert words[words.index("-smp") + 1] == "cpus=2,maxcpus=2" and words[words.index("-m") + 1] == "2048"
    assert words[words.index("-cpu") + 1] == "max" and words[words.index("-accel") + 1].startswith("tcg")
    alone = qemu.argv("a", Machine(), BOOT, 0)
    assert alone[alone.index("-smp") + 1] == "cpus=1,maxcpus=2", "else QEMU 7.2 leaves memory barriers out"
    words = qemu.argv("a", Machine(), qemu.Boot(**{**BOOT.__dict__, "accel": "kvm"}), 0)
    assert words[words.index("-cpu") + 1] == "host" and words[words.index("-accel") + 1] == "kvm"


def test_the_kernel_is_told_the_same_by_us_and_by_the_boot_loader():
    ours = qemu.KERNEL_ARGUMENTS.split()
    script = (build.HERE / "bake.sh").read_text()
    line = next(one for one in script.splitlines() if one.startswith("cmdline="))
    assert set(line.removeprefix("cmdline=").strip("'").split()) <= set(ours)
    assert qemu.MANAGEMENT_MAC in script


def test_a_command_goes_over_the_shared_connection_and_is_quoted():
    words = ssh.command(KEY, ["echo", "a b", "$x"], "/var/my log")
    assert words[-1] == f"cd '/var/my log' && exec {ssh.SESSION} echo 'a b' '$x'"
    assert f"ControlPath={ssh.CONTROL}" in words
    assert "-t" in ssh.terminal(KEY, ["top"]) and ssh.SESSION not in ssh.terminal(KEY, ["top"])[-1]
    assert "/a:/a" in ssh.master(KEY, ["/a"])


def test_interfaces_of_a_linux_bridge():
    topology = schema.parse(document(gateways=["10.0.0.254"]))
    text = identity.interfaces(topology.nodes["a"], ["up0"])
    assert "auto br0\niface br0 inet static\n    address 10.0.0.1/24\n" in text
    assert text.index("br0 mtu 8999") < text.index("br0 mtu 9000")
    assert "    bridge_ports up0\n" in text and "pre-up ip link set dev up0 mtu 9000" in text
    assert "up ip -4 route add default via 10.0.0.254 dev br0" in text


def test_interfaces_of_an_open_vswitch_bridge_and_a_free_port():
    with_port = document(
        bridges={"br0": {"kind": "ovs", "ports": ["up0"]}},
        addresses={"br0": ["10.0.0.1/24", "fd00::1/64"], "x0": ["10.9.0.1/24"]},
    )
    with_port["links"].append({"ends": ["a:x0", "core:x"]})
    text = identity.interfaces(schema.parse(with_port).nodes["a"], ["up0", "x0"])
    assert "ovs_type OVSBridge" in text and "ovs_ports up0" in text
    assert "allow-br0 up0\niface up0 inet manual\n    ovs_bridge br0" in text
    assert "auto x0\niface x0 inet static\n    address 10.9.0.1/24" in text
    assert "up ip address add fd00::1/64 dev br0 nodad" in text


def test_machines_differ():
    topology = built_in("machines")
    a, b = (identity.files("lab", host, ["up0"], "127.0.0.1 localhost\n") for host in topology.hosts)
    for path in ("/etc/hostname", "/etc/machine-id", "/etc/systemd/network/20-up0.link"):
        assert a[path] != b[path]
    assert len(a["/etc/machine-id"].strip()) == 32
    assert "Name=up0" in a["/etc/systemd/network/20-up0.link"]


def test_archive_holds_modes():
    data = identity.archive({"/etc/x": (b"secret", 0o600)})
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert (tar.getnames(), tar.getmember("etc/x").mode) == (["etc/x"], 0o600)
        assert tar.extractfile("etc/x").read() == b"secret"


def test_configuration_is_the_how_tos(tmp_path):
    topology = built_in("machines")
    howto.certificates(topology, tmp_path)
    found = howto.files(topology, topology.nodes["a"], tmp_path)
    assert {"/etc/vmnet/pki/ca.pem", "/etc/vmnet/pki/host.pem", "/etc/vmnet/pki/host.key"} <= set(found)
    assert found["/etc/vmnet/pki/host.key"][1] == 0o600
    config = tomllib.loads(found["/etc/vmnet/vmnet.toml"][0].decode())
    assert config["host"] == {"name": "a"} and "tls" not in config
    assert config["peers"]["b"]["migrate_uri"] == "tcp://10.0.0.2"


def test_a_domain_on_kernel_open_vswitch_keeps_its_checksum_offloads():
    topology = built_in("machines-ovs")
    boot = Boot("lab", Image(Path("/k"), Path("/i")), "kvm", "pc-q35-7.2", Path("/c"), kernel_datapath=True)
    xml = domain_xml(topology.vms["vm1"], boot, {"br0": "ovs"})
    assert 'type="kvm"' in xml and "openvswitch" in xml and "csum" not in xml
    assert "odd.ram" not in xml


def test_a_function_cannot_run_in_a_machine():
    host = MachineHost(LabPaths("x"), built_in("machines").nodes["a"])
    with pytest.raises(LabError, match="a is a machine"):
        host.call(lambda: None)


def test_guests_and_machine_types():
    assert guest_of(["/usr/bin/qemu-system-x86_64", "-name", "guest=vm1,debug-threads=on"]) == "vm1"
    assert guest_of([]) == guest_of(["bash", "guest=vm1"]) == ""
    assert newest_q35("pc-q35-7.2  x\npc-q35-10.0  y\nq35 z\n") == "pc-q35-10.0"
    assert oldest_q35(["pc-q35-10.0", "pc-q35-7.2"]) == "pc-q35-7.2"


def test_image_hash_changes_with_what_it_is_made_of(monkeypatch):
    first = image.content_hash(12, "key")
    assert first == image.content_hash(12, "key")
    assert len({first, image.content_hash(13, "key"), image.content_hash(12, "other")}) == 3
    monkeypatch.setattr(packages, "INSTALL", f"{packages.INSTALL} another")
    assert image.content_hash(12, "key") != first


def test_image_has_the_packages_of_the_how_to():
    text = (image.REPOSITORY / "docs" / "install.md").read_text()
    block = text.partition("apt-get install ")[2].partition("```")[0].replace("\\", " ")
    assert {word for word in block.split() if not word.startswith("-")} <= set(packages.names())


@pytest.mark.parametrize("step", ["LIBVIRT", "CHECK", "HOOKS", "DAEMON"])
def test_what_is_typed_on_a_machine_is_in_the_how_to(step):
    page = (image.REPOSITORY / "docs" / "install.md").read_text().splitlines()
    lines = [line for line in getattr(howto, step).splitlines() if line]
    assert lines and set(lines) <= set(page)


def test_mmdebstrap_runs_without_recommends_and_with_our_hook():
    words = packages.mmdebstrap(13, "/root", ["hook"], ["/sources"])
    assert words[-3:] == ["trixie", "/root", "/sources"]
    assert "--customize-hook=hook" in words


def test_pip_settings_of_this_computer():
    settings = pip_settings.parse(
        ":env:.index-url='https://b/simple'\nglobal.index-url='https://a/simple'\n"
        "global.extra-index-url='file:///x https://c/simple'\nglobal.cert='/nowhere.pem'\n"
    )
    text = pip_settings.shell(settings, {"https_proxy": "http://p:1"})
    assert text.splitlines() == [
        "PIP_INDEX_URL=https://b/simple",
        "PIP_EXTRA_INDEX_URL=https://c/simple",
        "https_proxy=http://p:1",
    ]
    assert pip_settings.certificate(settings) is None


def test_archive_of_this_copy_has_no_bytecode(tmp_path):
    tree.pack(tmp_path / "vmnet.tar")
    with tarfile.open(tmp_path / "vmnet.tar") as tar:
        names = tar.getnames()
    assert {"pyproject.toml", "vmnet/pki.py", "scripts/vmnet-dom0d.service", "hooks/qemu"} <= set(names)
    assert not any("__pycache__" in name for name in names)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    program = tmp_path_factory.mktemp("session") / "session"
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", program, build.HERE / "session.c"], check=True)
    return str(program)


def test_session_passes_input_output_and_code(session):
    done = subprocess.run([session, "sh", "-c", "cat; exit 7"], input=b"x", capture_output=True)
    assert (done.stdout, done.returncode) == (b"x", 7)
    assert subprocess.run([session, "sh", "-c", "kill -9 $$"]).returncode == 128 + 9
    assert subprocess.run([session, "/nonexistent"], stderr=subprocess.DEVNULL).returncode == 127


def test_session_ends_the_command_when_nobody_reads_any_more(session):
    with subprocess.Popen([session, "sh", "-c", "echo up; sleep 100"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        process.stdout.close()
        assert process.wait(5) == 128 + 15


def test_a_clock_is_read_by_the_fastest_answer():
    slow, fast = clock.Asked(100.0, 250.0, 104.0), clock.Asked(200.0, 350.25, 200.5)
    assert clock.ahead_s([slow, fast]) == pytest.approx(150.0)
