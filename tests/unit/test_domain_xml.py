"""Domain XML: what libvirt 9 sends to a migrate hook, and what an attacker might."""

from xml.etree.ElementTree import canonicalize

import pytest

from vmnet.domain_xml import DomainInfo, Interface, parse, rebind
from vmnet.errors import RefusedError

QEMU = b"""<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web1</name><uuid>C7A5FDBD-EDAF-9455-926A-D65C16DB1809</uuid>
  <memory unit='MiB'>128</memory><vcpu placement='static'>2</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <devices>
    <interface type='bridge'>
      <mac address='52:54:00:AA:BB:01'/><source bridge='br-blue'/>
      <virtualport type='openvswitch'>
        <parameters interfaceid='c7a5fdbd-edaf-9455-926a-d65c16db1800'/>
      </virtualport>
      <target dev='vnet0'/><model type='virtio'/><mtu size='1400'/>
    </interface>
    <interface type='network'><mac address='52:54:00:aa:bb:02'/>
      <source network='default' bridge='virbr0'/></interface>
  </devices>
  <qemu:commandline><qemu:arg value='-S'/></qemu:commandline>
</domain>"""


def test_reads_what_matters() -> None:
    assert parse(QEMU) == DomainInfo(
        name="web1",
        uuid="c7a5fdbd-edaf-9455-926a-d65c16db1809",
        driver="qemu",
        machine="pc-q35-7.2",
        arch="x86_64",
        vcpus=2,
        memory_kib=131072,
        interfaces=(
            Interface("52:54:00:aa:bb:01", "bridge", "br-blue", None, "vnet0", "openvswitch", 1400, "virtio"),
            Interface("52:54:00:aa:bb:02", "network", "virbr0", "default"),
        ),
    )


def test_rebind_changes_only_the_source() -> None:
    new = rebind(QEMU, {"br-blue": "br0", "virbr0": "br9"})
    assert new is not None
    assert canonicalize(new.decode()) == canonicalize(QEMU.replace(b"'br-blue'", b"'br0'").decode())


def test_rebind_to_what_it_is_changes_nothing() -> None:
    assert rebind(QEMU, {}) is None
    assert rebind(QEMU, {"br0": "br1", "virbr0": "br2", "br-blue": "br-blue"}) is None
    assert rebind(QEMU, {}, {"br-blue": True}) is None


def test_rebind_to_a_linux_bridge_and_back() -> None:
    plain = rebind(QEMU, {"br-blue": "br0"}, {"br0": False})
    assert plain is not None
    assert parse(plain).interfaces[0].virtualport is None
    back = rebind(plain, {}, {"br0": True})
    assert back is not None
    assert parse(back).interfaces[0].virtualport == "openvswitch"


def test_other_virtualports_are_kept_unless_openvswitch_is_wanted() -> None:
    other = QEMU.replace(b"openvswitch", b"midonet")
    assert rebind(other, {}, {"br-blue": False}) is None
    assert parse(rebind(other, {}, {"br-blue": True}) or b"").interfaces[0].virtualport == "openvswitch"


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (b"", "not well-formed"),
        (b"<domain>", "not well-formed"),
        (b"<network/>", "not a <domain>"),
        (b"<domain/>", "no usable <name>"),
        (b"<domain><name>../x</name></domain>", "no usable <name>"),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]><domain><name>&a;</name></domain>", "document type"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><domain><name>&a;</name></domain>".encode("utf-16"), "document type"),
        (b"<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain/>", "document type"),
        (b"<domain><name>&x;</name></domain>", "not well-formed"),
        (b"<?xml version='1.0' encoding='no-such'?><domain/>", "not well-formed"),
        (b"<domain>" * 65, "nested deeper"),
        (b"<domain>" * 120_000, "nested deeper"),
        (b" " * 1_048_577, "larger than"),
        (b"<domain><name>a</name><vcpu>9999999999999999999</vcpu></domain>", "vcpu"),
        ("<domain><name>a</name><vcpu>\u0663</vcpu></domain>".encode(), "vcpu"),
        (b"<domain><name>a</name><uuid>x</uuid></domain>", "uuid"),
        (QEMU.replace(b"52:54:00:AA:BB:01", b"x"), "MAC"),
        (QEMU.replace(b"br-blue", b"../../etc"), "source bridge"),
        (QEMU.replace(b"vnet0", b"a b"), "target dev"),
        (QEMU.replace(b"1400", b"-1"), "mtu"),
        (
            b"<domain><name>a</name><devices>" + b"<interface/>" * 257 + b"</devices></domain>",
            "256 interfaces",
        ),
    ],
)
def test_refuses_what_libvirt_never_writes(xml: bytes, expected: str) -> None:
    with pytest.raises(RefusedError, match=expected):
        parse(xml)


def test_doctype_in_a_text_is_only_text() -> None:
    xml = b"<domain><name>a</name><description><![CDATA[<!DOCTYPE x>]]></description></domain>"
    assert parse(xml).name == "a"


@pytest.mark.parametrize(
    ("driver", "queues"), [(b"", 1), (b"<driver name='vhost' queues='4'/>", 4), (b"<driver name='qemu'/>", 1)]
)
def test_how_many_queues_an_interface_has(driver: bytes, queues: int) -> None:
    xml = QEMU.replace(b"<model type='virtio'/>", b"<model type='virtio'/>" + driver, 1)
    assert max(one.queues for one in parse(xml).interfaces) == queues
