"""A VM that forwards becomes a virtual router, and an ordinary VM again: nobody loses a packet, and it looks the same."""

from __future__ import annotations

import errno
import socket
import struct

import kit
import router_kit
from router_marks import MARKS

from vmnet.lab import Host, Lab, Node, routing
from vmnet.lab.wait import wait_for

pytestmark = MARKS
_OWN = ("10.1.0.1", "10.2.0.1", "fd01::1", "fd02::1")
_RECVERR, _RECVERR6, _HOPS6 = 11, 25, 16


def forwarded_by_host(host: Host) -> int:
    return sum(port["data"] for port in router_kit.listed(host)["ports"].values())


def received_by_vm(lab: Lab) -> int:
    """Packets that came in on the VM's own data interfaces."""
    said = routing.in_vm(lab, router_kit.VM, ["sh", "-c", "cat /sys/class/net/eth[01]/statistics/rx_packets"])
    return sum(map(int, said.split()))


def hop(node: Node, target: str) -> str:
    """Who says that a packet with one hop left has none (as traceroute asks)."""
    return node.call(lambda: _hop(target))


def _hop(target: str) -> str:
    ipv6 = ":" in target
    with socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        level = socket.IPPROTO_IPV6 if ipv6 else socket.IPPROTO_IP
        sock.setsockopt(level, _HOPS6 if ipv6 else socket.IP_TTL, 1)
        sock.setsockopt(level, _RECVERR6 if ipv6 else _RECVERR, 1)
        sock.connect((target, 33434))
        sock.send(b"?")
        return wait_for(f"somebody to say that {target} is too far", lambda: _offender(sock), 3, 0.01)


def _offender(sock: socket.socket) -> str | None:
    try:
        _, ancillary, _, _ = sock.recvmsg(64, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    # struct sock_extended_err (ip(7)): errno, origin, type, code, pad, info, data; then the offender's address
    data = ancillary[0][2]
    assert struct.unpack_from("=I", data)[0] == errno.EHOSTUNREACH
    family = struct.unpack_from("=H", data, 16)[0]
    return socket.inet_ntop(family, data[20:24] if family == socket.AF_INET else data[24:40])


def pings(node: Node, address: str) -> bool:
    return node.run(["busybox", "ping", "-c1", "-W3", address], check=False).returncode == 0


def looks(lab: Lab) -> dict[str, object]:
    """What a client sees of the router."""
    client = lab.node("client")
    far = (router_kit.SERVER4, "fd02::100")
    return {
        "hops": [hop(client, one) for one in far],
        "back": [hop(lab.node("server"), one) for one in ("10.1.0.100", "fd01::100")],
        "pings": [pings(client, one) for one in (*far, *_OWN)],
    }


def namespace_echoes(host: Host) -> list[str]:
    """How many echo requests the namespace itself has taken: IPv4, IPv6."""
    look = (
        "awk '/^Icmp:/ {n = $9} END {print n}' /proc/net/snmp;"
        " awk '$1 == \"Icmp6InEchos\" {print $2}' /proc/net/snmp6"
    )
    return str(host.run(["ip", "netns", "exec", router_kit.NETNS, "sh", "-c", look]).stdout).split()


def test_added_and_removed_under_traffic(pisa: Lab) -> None:
    host = router_kit.where(pisa)
    if router_kit.listed(host):
        router_kit.remove(host)
    before = looks(pisa)
    assert before == {
        "hops": ["10.1.0.1", "fd01::1"],
        "back": ["10.2.0.1", "fd02::1"],
        "pings": [True] * 6,
    }

    with router_kit.undisturbed(pisa):
        router_kit.add(host)
        router_kit.wait_forwarding(host)
    mine, vms = forwarded_by_host(host), received_by_vm(pisa)
    with router_kit.undisturbed(pisa) as traffic:
        router_kit.wait_packets(traffic, 5000)
    sent = sum(one.counts.sent for one in traffic.results)
    assert forwarded_by_host(host) - mine >= sent
    assert received_by_vm(pisa) - vms < sent / 4, "the VM still forwards"
    assert looks(pisa) == before
    assert namespace_echoes(host) == ["0", "0"], "the namespace answers for the VM"
    assert not router_kit.fib_difference(pisa, host)

    vms = received_by_vm(pisa)
    with router_kit.undisturbed(pisa) as traffic:
        router_kit.remove(host)
        router_kit.wait_packets(traffic, 3000)
    trace = router_kit.traces(host)
    assert (trace.namespaces, trace.devices, trace.programs) == ([], [], [])
    assert received_by_vm(pisa) > vms
    assert looks(pisa) == before


def test_refuses_what_is_no_interface(pisa: Lab) -> None:
    said = kit.vmnet(router_kit.where(pisa), "router", "add", router_kit.VM, "--management", "nosuch")
    assert said.returncode == 6
    assert "nosuch" in said.stderr
