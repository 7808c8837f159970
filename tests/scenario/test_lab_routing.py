"""A virtual router between neighbours that run FRR: it converges, forwards, and survives a plain migration."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from importlib.resources import files

import pytest

from vmnet.errors import LabError
from vmnet.lab import Lab, lab_up, routing, sessions, status
from vmnet.lab.wait import wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("libvirtd") or not shutil.which("vtysh"),
        reason="needs root, libvirtd and FRR",
    ),
]
SERVER = ("10.2.0.100", "fd02::100")


IPV4_ROUTES, IPV6_ROUTES = 1000, 100
"""A tenth of the topology's: a plain migration may cost the sessions, and an emulated router learns 10,000 anew in half a minute or,
where it loses them again meanwhile, not at all."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    text = (files("vmnet.lab") / "topologies" / "pisa.yaml").read_text()
    many = "announce: {ipv4: 10000, ipv6: 1000}"
    assert many in text
    file = tmp_path_factory.mktemp("topology") / "pisa.yaml"
    file.write_text(text.replace(many, f"announce: {{ipv4: {IPV4_ROUTES}, ipv6: {IPV6_ROUTES}}}"))
    with lab_up(str(file), "labroute", hooks=False, daemon=False) as made:
        routing.wait_converged(made)
        yield made


def pings(lab: Lab, address: str) -> bool:
    command = ["busybox", "ping", "-c1", "-W2", address]
    return lab.node("client").run(command, check=False).returncode == 0


def uptimes_ms(lab: Lab, node: str) -> list[int]:
    found = lab.node(node).vtysh_json(sessions.BGP)
    return [peer["peerUptimeMsec"] for family in found.values() for peer in family["peers"].values()]


def test_daemons_belong_to_the_lab(lab: Lab) -> None:
    assert status.dead_parts(lab) == []
    assert {"zebra", "ospfd", "bgpd", "bfdd"} <= set(status.report(lab)["nodes"]["client"]["pids"])


@pytest.mark.parametrize("router", ["client", "server", "vr1"])
def test_every_session_is_up(lab: Lab, router: str) -> None:
    view = routing.view(lab, router)
    neighbours = 2 if router == "vr1" else 1
    assert [state for _, state in sessions.bgp_states(view)] == ["Established"] * 2 * neighbours
    assert [full for _, full in sessions.ospf_full(view)] == [1] * neighbours
    states = [state for _, state in sessions.bfd_states(view)]
    assert len(states) >= 2 * neighbours
    assert set(states) == {"up"}


def test_all_routes_are_learned(lab: Lab) -> None:
    view = routing.view(lab, "client")
    assert sessions.installed(view[sessions.IPV4]) >= IPV4_ROUTES
    assert sessions.installed(view[sessions.IPV6]) >= IPV6_ROUTES
    loopback = lab.node("client").run(["ip", "-j", "route", "show", "192.0.2.2"]).stdout
    assert json.loads(loopback)[0]["gateway"] == "10.1.0.1"


def test_asking_inside_the_vm(lab: Lab) -> None:
    assert routing.in_vm(lab, "vr1", ["hostname"]).strip() == "vr1"
    assert routing.in_vm(lab, "vr1", ["echo", "a  b;'c'"], via="server").strip() == "a  b;'c'"
    with pytest.raises(LabError, match=r"'sh -c .*failed with code 3: too bad"):
        routing.in_vm(lab, "vr1", ["sh", "-c", "echo too bad >&2; exit 3"])
    with pytest.raises(LabError, match=r"no answer within 0.5 s"):
        routing.in_vm(lab, "vr1", ["sleep", "5"], limit_s=0.5)
    with pytest.raises(LabError, match="core is on no LAN of vr1"):
        routing.in_vm(lab, "vr1", ["true"], via="core")


def test_a_full_frame_passes(lab: Lab) -> None:
    whole = ["busybox", "ping", "-c1", "-W2", "-s", "1472", SERVER[0]]
    assert lab.node("client").run(whole, check=False).returncode == 0


def test_openflow_switches_have_one_path() -> None:
    with lab_up("pisa-openflow", "labflow") as lab:
        for address in ("10.3.0.2", "fd03::2"):
            assert pings(lab, address)
        idle = lab.node("s3").run(["ovs-ofctl", "dump-ports", "switch"]).stdout
        assert "rx pkts=0" in idle


def test_forwards_before_and_after_a_plain_migration(lab: Lab) -> None:
    assert all(pings(lab, address) for address in SERVER)
    a, b = lab.host("a"), lab.host("b")
    a.run(["virsh", "migrate", "--live", "vr1", b.libvirt_uri, f"tcp://{b.address}"], timeout=60)
    assert [(found.vm, found.host) for found in lab.running_vms()] == [("vr1", "b")]
    # plain libvirt stands still for about as long as BFD waits: the sessions may have gone, and come back
    routing.wait_converged(lab)
    wait_for("the server to be reached", lambda: all(pings(lab, address) for address in SERVER), 30, 0.5)
    assert all(uptimes_ms(lab, node) for node in ("client", "server"))
