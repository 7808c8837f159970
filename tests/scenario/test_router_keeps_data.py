"""A router VM whose kernel does more than route: it forwards itself, with the reason, until it does no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import kit
import router_kit
from router_marks import MARKS

from vmnet.errors import ExitCode
from vmnet.lab import Host, Lab, Node, routing
from vmnet.lab.wait import wait_for

pytestmark = MARKS
_FORWARDING = "/proc/sys/net/ipv4/conf/eth0/forwarding"
_ROUTER, _SERVER = "10.2.0.1", "10.2.0.100"


def in_vm(lab: Lab, *argv: str) -> str:
    return routing.in_vm(lab, router_kit.VM, argv)


def answered(lab: Lab) -> bool:
    """Whether the server answers the client, by way of the router."""
    done = lab.node("client").run(
        ["busybox", "ping", "-c", "3", "-i", "0.2", "-W", "1", "-I", router_kit.CLIENT4, router_kit.SERVER4],
        check=False,
    )
    return done.returncode == 0


def wait_slow(host: Host, reason: str) -> None:
    def slow() -> bool:
        listed = router_kit.listed(host)
        return listed["data"] == "slow" and any(reason in text for text in listed["reasons"])

    wait_for(f"{router_kit.VM} to forward itself because of {reason!r}", slow, 20, 0.1)


@contextmanager
def not_forwarding(lab: Lab) -> Iterator[None]:
    in_vm(lab, "sh", "-c", f"echo 0 > {_FORWARDING}")
    try:
        yield
    finally:
        in_vm(lab, "sh", "-c", f"echo 1 > {_FORWARDING}")


def test_forwarding_is_switched_off_in_the_vm(pisa: Lab) -> None:
    host = router_kit.forwarding(pisa)
    assert answered(pisa)
    with not_forwarding(pisa):
        wait_slow(host, "forwarding: the VM does not forward IPv4 from eth0")
        assert not answered(pisa)
        done = kit.vmnet(host, "migrate", router_kit.VM, router_kit.other(pisa, host).name)
        assert done.returncode == ExitCode.REFUSED and "does not forward IPv4 from eth0" in done.stderr
        router_kit.add(host, "--bypass", "forwarding")
        router_kit.wait_forwarding(host)
        assert answered(pisa)
        assert router_kit.listed(host)["bypassed"]
        router_kit.add(host)
        wait_slow(host, "forwarding")
        assert not answered(pisa)
    router_kit.wait_forwarding(host)
    assert answered(pisa)
    router_kit.settled(pisa)


@contextmanager
def silent(server: Node) -> Iterator[None]:
    """It answers no ARP request, and sends to the router as ever."""
    known = server.run(["ip", "-j", "neigh", "show", _ROUTER, "dev", "eth0"]).stdout
    mac = json.loads(known)[0]["lladdr"]
    server.run(["ip", "neigh", "replace", _ROUTER, "lladdr", mac, "nud", "permanent", "dev", "eth0"])
    server.run(["sysctl", "-q", "-w", "net.ipv4.conf.eth0.arp_ignore=8"])
    try:
        yield
    finally:
        server.run(["sysctl", "-q", "-w", "net.ipv4.conf.eth0.arp_ignore=0"])
        server.run(["ip", "neigh", "replace", _ROUTER, "lladdr", mac, "nud", "reachable", "dev", "eth0"])


def test_a_neighbour_that_answers_the_vm_alone(pisa: Lab) -> None:
    """The host does not take over until it knows the neighbour, too: here as the VM has it set for ever."""
    host = router_kit.forwarding(pisa)
    server = pisa.node("server")
    router_kit.settled(pisa)
    router_kit.remove(host)
    try:
        with router_kit.undisturbed(pisa) as traffic, silent(server):
            router_kit.wait_packets(traffic, 500)
            router_kit.add(host)
            wait_slow(host, f"{_SERVER} on eth1 does not answer this host")
            in_vm(
                pisa, "arp", "-s", _SERVER, server.run(["cat", "/sys/class/net/eth0/address"]).stdout.strip()
            )
            router_kit.wait_forwarding(host)
            router_kit.wait_packets(traffic, 1000)
    finally:
        in_vm(pisa, "sh", "-c", f"arp -d {_SERVER} || true")
    router_kit.wait_forwarding(host)
    router_kit.settled(pisa)
