"""A VM as libvirt XML. Pure text."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from vmnet.lab.accel import Accel
from vmnet.lab.hostfiles import stable_uuid
from vmnet.lab.image import Image
from vmnet.lab.ovn_ports import vm_port
from vmnet.lab.topology import BridgeKind, Vm, VmInterface

_BOOT = "console=ttyS0 quiet mitigations=off random.trust_cpu=on tsc=reliable net.ifnames=0 panic=-1"

_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
ET.register_namespace("qemu", _QEMU)


@dataclass(frozen=True)
class Boot:
    """What a VM is started with besides its description."""

    lab: str
    image: Image
    accel: Accel
    machine: str
    console: Path
    kernel_datapath: bool = False
    """Bridges of Open vSwitch are the kernel's, which takes frames without checksums."""


def kernel_arguments(vm: Vm) -> str:
    """The guest's command line; guest/init reads it."""
    words = [_BOOT, f"vmnet.name={vm.name}"]
    for number, interface in enumerate(vm.interfaces):
        words.append(f"vmnet.if{number}={','.join(interface.addresses)}")
        words.append(f"vmnet.mtu{number}={interface.mtu}")
    if vm.gateways:
        words.append(f"vmnet.gw={','.join(vm.gateways)}")
    if vm.image == "router":
        words += ["vmnet.frr=zebra,staticd,ospfd,bgpd,bfdd", "vmnet.forward=1", "vmnet.answer=1"]
    if vm.game:
        words.append("vmnet.game=1")
    if vm.agent:
        words.append(f"vmnet.agent={vm.agent}")
    return " ".join(words)


def domain_xml(vm: Vm, boot: Boot, kinds: dict[str, BridgeKind]) -> str:
    """``kinds`` tells for each bridge of the host what it is."""
    root = ET.Element("domain", type="kvm" if boot.accel == "kvm" else "qemu")
    _text(root, "name", vm.name)
    _text(root, "uuid", stable_uuid(boot.lab, "vm", vm.name))
    _text(root, "memory", str(vm.memory), unit="MiB")
    _text(root, "vcpu", "1")
    system = ET.SubElement(root, "os")
    _text(system, "type", "hvm", arch="x86_64", machine=vm.machine or boot.machine)
    _text(system, "kernel", str(boot.image.kernel))
    _text(system, "initrd", str(boot.image.initrd))
    _text(system, "cmdline", kernel_arguments(vm))
    ET.SubElement(ET.SubElement(root, "features"), "acpi")
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(root, event, action)
    devices = ET.SubElement(root, "devices")
    _text(devices, "emulator", "/usr/bin/qemu-system-x86_64")
    for number, interface in enumerate(vm.interfaces):
        kind = kinds[interface.bridge]
        plain = interface.plain_checksums or (kind != "linux" and not boot.kernel_datapath)
        _interface(devices, interface, kind, vm_port(boot.lab, vm.name, number), plain)
    serial = ET.SubElement(devices, "serial", type="file")
    # append: the destination of a migration opens the same file
    ET.SubElement(serial, "source", path=str(boot.console), append="on")
    ET.SubElement(serial, "target", port="0")
    ET.SubElement(devices, "memballoon", model="none")
    if boot.accel == "tcg":
        _odd_memory(root, vm.memory)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


def _odd_memory(root: ET.Element, memory_mib: int) -> None:
    """QEMU's TCG loses a guest's writes in a migration if memory is a multiple of 256 KiB, as libvirt always has it: 8 KiB more.

    There it clears dirty bits in words of 64 pages, and does not tell the emulated processor, whose later writes to these pages go
    unnoticed (include/exec/ram_addr.h, cpu_physical_memory_sync_dirty_bitmap; mended in QEMU 9.0).
    """
    kib = memory_mib * 1024 + 8
    line = ET.SubElement(root, f"{{{_QEMU}}}commandline")
    for word in (
        *("-object", f"memory-backend-ram,id=odd.ram,size={kib * 1024}"),
        *("-machine", "memory-backend=odd.ram"),
        *("-m", f"{kib}k"),
    ):
        ET.SubElement(line, f"{{{_QEMU}}}arg", value=word)


def _interface(
    devices: ET.Element, interface: VmInterface, kind: BridgeKind, port: str, plain_checksums: bool
) -> None:
    element = ET.SubElement(devices, "interface", type="bridge")
    ET.SubElement(element, "mac", address=interface.mac)
    ET.SubElement(element, "source", bridge=interface.bridge)
    ET.SubElement(element, "model", type="virtio")
    ET.SubElement(element, "mtu", size=str(interface.mtu))
    if kind != "linux":
        vport = ET.SubElement(element, "virtualport", type="openvswitch")
        if kind == "ovn":
            ET.SubElement(vport, "parameters", interfaceid=port)
    if plain_checksums:
        driver = ET.SubElement(element, "driver")
        # the userspace datapath takes frames as they are: checksums have to be in them
        ET.SubElement(driver, "host", csum="off", gso="off", tso4="off", tso6="off", ecn="off", ufo="off")
        ET.SubElement(driver, "guest", csum="off", tso4="off", tso6="off", ecn="off", ufo="off")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text
