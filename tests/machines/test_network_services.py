"""The hosts' bridges are systemd-networkd's or NetworkManager's, which look after every interface that they see.

systemd-networkd is told to configure vmnet's own devices, too (DHCP, LLDP). It must not be told so of guests' taps: it takes what its
file gives no bridge out of its bridge, with vmnet or without. Both services are restarted while a guest is on its way.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from disturbed import moved

from vmnet.bench.rows import Case
from vmnet.bench.schemes import SCHEMES
from vmnet.bench.stage import Stage, stage
from vmnet.bench.vm import Bench, Settings, Step
from vmnet.lab import Host
from vmnet.lab.wait import wait_for

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(1800)]
RATE_PPS = 100
TOPOLOGY_SCHEMES = ("machines-vmnet", "machines-vmnet-virsh")
AWAY = "rm -f /etc/network/interfaces.d/lab; systemctl restart vmnet-dom0d"


@dataclass(frozen=True)
class Service:
    """``files``: path -> content, with the host's address. ``has_bridge``: a command that succeeds when it has the bridge."""

    unit: str
    files: Callable[[str], dict[str, str]]
    has_bridge: str


def _networkd(address: str) -> dict[str, str]:
    at = "/etc/systemd/network"
    return {
        f"{at}/30-mgmt.network": "[Match]\nName=mgmt\n\n[Link]\nUnmanaged=yes\n",
        f"{at}/31-br0.netdev": "[NetDev]\nName=br0\nKind=bridge\n\n[Bridge]\nSTP=no\nForwardDelaySec=0\n",
        f"{at}/31-up0.network": "[Match]\nName=up0\n\n[Network]\nBridge=br0\n",
        f"{at}/31-br0.network": f"[Match]\nName=br0\n\n[Network]\nAddress={address}\nLinkLocalAddressing=ipv6\n",
        f"{at}/99-every.network": "[Match]\nName=vm*\n\n[Network]\nDHCP=yes\nLLDP=yes\nEmitLLDP=yes\n",
    }


def _network_manager(address: str) -> dict[str, str]:
    at = "/etc/NetworkManager"
    bridge = "[connection]\nid=br0\ntype=bridge\ninterface-name=br0\n\n[bridge]\nstp=false\n\n"
    port = "[connection]\nid=up0\ntype=ethernet\ninterface-name=up0\nmaster=br0\nslave-type=bridge\n"
    every = "[main]\nplugins=keyfile\n\n[keyfile]\nunmanaged-devices=interface-name:mgmt\n"
    return {
        f"{at}/conf.d/lab.conf": every,
        f"{at}/system-connections/br0.nmconnection": f"{bridge}[ipv4]\nmethod=manual\naddress1={address}\n",
        f"{at}/system-connections/up0.nmconnection": port,
    }


NETWORKD = Service(
    "systemd-networkd",
    _networkd,
    "networkctl -n0 status br0 | grep -Eq 'State: (routable|degraded) \\(configured\\)'",
)
NETWORK_MANAGER = Service(
    "NetworkManager", _network_manager, "nmcli -g GENERAL.STATE device show br0 | grep -q '^100 '"
)


@pytest.fixture(scope="module", params=[NETWORKD, NETWORK_MANAGER], ids=lambda one: one.unit)
def ready(request: pytest.FixtureRequest) -> Iterator[tuple[Stage, Service]]:
    request.getfixturevalue("debian12_once")
    service: Service = request.param
    with stage("services", [SCHEMES[name] for name in TOPOLOGY_SCHEMES], keep=False) as made:
        for host in made.focus(SCHEMES[TOPOLOGY_SCHEMES[0]].lab).lab.hosts:
            hand_over(host, service)
        yield made, service


def hand_over(host: Host, service: Service) -> None:
    address = next(one for one in host.spec.addresses["br0"] if ":" not in one)
    for path, text in service.files(address).items():
        host.run(
            ["sh", "-c", f"mkdir -p $(dirname {path}); umask 077; cat > {path}; chmod 644 {path}"], text=text
        )
    if service is NETWORK_MANAGER:
        host.run(["sh", "-c", "chmod 600 /etc/NetworkManager/system-connections/*"])
    host.run(["sh", "-ec", AWAY], timeout=60)
    host.run(["systemctl", "start", service.unit], timeout=60)
    wait_for(f"{service.unit} to have br0 on {host.name}", lambda: has_bridge(host, service), 60, 1)
    host.wait_daemon()


def has_bridge(host: Host, service: Service) -> bool:
    return host.run(["sh", "-c", service.has_bridge], check=False).returncode == 0


@pytest.mark.parametrize("name", TOPOLOGY_SCHEMES)
def test_a_guest_moves_without_loss(ready: tuple[Stage, Service], name: str) -> None:
    made, service = ready
    settings = Settings([name], [RATE_PPS], ["idle"], runs=2, controls=0)
    place = made.focus(SCHEMES[name].lab)
    for number in range(2):
        row = Bench(settings, made).step(Step(Case(name, RATE_PPS, 64, "idle"), number, False))
        assert row.error == "" and row.verdict is not None, row
        assert (row.lost, row.reordered, row.verdict["lost"]) == (0, 0, 0), row
    for host in place.lab.hosts:
        assert has_bridge(host, service)
        left = host.run(["sh", "-c", "ls /sys/class/net | grep ^vm[tpqof] || true"]).stdout.split()
        assert left == [], f"{host.name} still has {left}"


def test_the_service_is_restarted_in_pre_copy(ready: tuple[Stage, Service]) -> None:
    made, service = ready
    place = made.focus(SCHEMES[TOPOLOGY_SCHEMES[0]].lab)

    def restart() -> None:
        for host in place.lab.hosts:
            host.run(["systemctl", "restart", service.unit], timeout=90)

    found = moved(SCHEMES[TOPOLOGY_SCHEMES[0]], place, restart)
    assert (found.code, found.lost, found.reordered) == (0, 0, 0), found
