"""At which of a VM's interfaces anything can be held: real taps and a macvtap, in and out of bridges."""

import os

import pytest
from dataplane_kit import Host, ip, isolated

from dom0 import wiring
from dom0.preflight import local_problems
from vmnet.domain_xml import DomainInfo, Interface
from vmnet.errors import RefusedError

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def vm(*interfaces: tuple[str, str, str | None], mac: str = "52:54:00:00:00:0{}") -> DomainInfo:
    """Of kind, device and bridge of each interface."""
    found = tuple(
        Interface(mac.format(number), kind, bridge, target_dev=device)
        for number, (kind, device, bridge) in enumerate(interfaces)
    )
    return DomainInfo("vm1", "", "kvm", "", "", 1, 1024, found)


@isolated()
def test_an_interface_is_judged_by_its_device_and_not_by_what_it_is_called() -> None:
    with Host():
        ip("link", "add", "br0", "type", "bridge")
        for tap, master in (("vnet0", "br0"), ("mine", "br0"), ("routed", None)):
            ip("tuntap", "add", tap, "mode", "tap")
            if master is not None:
                ip("link", "set", tap, "master", master)
        ip("link", "add", "card", "type", "veth", "peer", "name", "switch")
        ip("link", "add", "link", "card", "name", "macvtap0", "type", "macvtap", "mode", "bridge")
        every = vm(
            ("bridge", "vnet0", "br0"),
            ("ethernet", "mine", None),
            ("ethernet", "routed", None),
            ("direct", "macvtap0", None),
            ("hostdev", "", None),
            ("bridge", "gone", "br0"),
        )
        assert [tap for _one, tap in wiring.on_bridges(every)] == ["vnet0", "mine"]
        assert wiring.unprotected(every) == (
            "52:54:00:00:00:02 (type 'ethernet', a tap on no bridge)",
            "52:54:00:00:00:03 (type 'direct', no tap)",
            "52:54:00:00:00:04 (type 'hostdev', no tap)",
            "52:54:00:00:00:05 (type 'bridge', no tap)",
        )
        assert len(local_problems(every, allow_unprotected=False)) == 4
        assert local_problems(every, allow_unprotected=True) == []
        alone = vm(("direct", "macvtap0", None))
        for allowed in (False, True):
            (problem,) = local_problems(alone, allowed)
            assert "use `virsh migrate`" in problem and "direct" in problem


@isolated()
def test_interfaces_that_cannot_be_told_apart_are_refused() -> None:
    """What was held for one LAN came out in the other."""
    with Host():
        for tap in ("vnet0", "vnet1"):
            ip("tuntap", "add", tap, "mode", "tap")
        twins = vm(("bridge", "vnet0", "br0"), ("bridge", "vnet1", "br1"), mac="52:54:00:00:00:01")
        (problem,) = local_problems(twins, allow_unprotected=True)
        assert "2 interfaces have the MAC address 52:54:00:00:00:01" in problem
        with pytest.raises(RefusedError, match="2 interfaces have the MAC address"):
            wiring.outlets(twins, None)


@isolated()
def test_more_interfaces_than_vmnet_moves_are_refused() -> None:
    with Host():
        ip("tuntap", "add", "vnet0", "mode", "tap")
        many = vm(*[("bridge", "vnet0", "br0")] * 65, mac="52:54:00:00:{:02x}:01")
        (problem,) = local_problems(many, allow_unprotected=True)
        assert "65 interfaces, and vmnet moves 64 at most" in problem


@isolated()
def test_a_bridge_that_only_floods_is_refused() -> None:
    with Host():
        ip("link", "add", "br0", "type", "bridge")
        ip("tuntap", "add", "vnet0", "mode", "tap")
        ip("link", "set", "vnet0", "master", "br0")
        one = vm(("bridge", "vnet0", "br0"))
        assert local_problems(one, allow_unprotected=False) == []
        ip("link", "set", "br0", "type", "bridge", "ageing_time", "0")
        (problem,) = local_problems(one, allow_unprotected=True)
        assert "the bridge of vnet0 learns no addresses (ageing time 0)" in problem
