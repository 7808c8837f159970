"""What goes on around a router's data plane: routes that flap while it moves, its VM's zebra, our daemon and their link that fail."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import route_flapper
import router_kit
from router_marks import MARKS

from vmnet.errors import LabError
from vmnet.lab import Host, Lab, routing
from vmnet.lab.wait import wait_for

pytestmark = MARKS
_LEARN_S = 120
"""After the last change of the FIB: a zebra that starts anew learns 11,000 routes again, for minutes in an emulated router on a slow
machine. Only when all are in, the sweep deletes what zebra did not name again."""
_FLAPS = 2000
_CUT_S = 5


def test_routes_flap_while_it_moves(pisa: Lab) -> None:
    router_kit.forwarding(pisa)
    router_kit.settled(pisa)
    try:
        with router_kit.undisturbed(pisa), route_flapper.flapping(pisa) as flapper:
            router_kit.migrate(pisa)
            wait_for(f"{_FLAPS} changes", lambda: flapper.changes >= _FLAPS, 10)
        host = router_kit.where(pisa)
        router_kit.wait_same_fib(pisa, host)
    finally:
        route_flapper.restore(pisa)
    router_kit.wait_same_fib(pisa, host)
    router_kit.settled(pisa)


def survives(
    lab: Lab, break_it: Callable[[Host], None], mend_it: Callable[[Host], None], strict: bool = True
) -> None:
    """Data goes through while the control plane is broken; a route that goes meanwhile is gone afterwards, and comes back."""
    host = router_kit.forwarding(lab)
    with router_kit.pinned(lab), router_kit.flowing_freely(lab):
        break_it(host)
        with route_flapper.withdrawn(lab) as prefix:
            mend_it(host)
            wait_prefix(lab, prefix, there=False, strict=strict)
    wait_prefix(lab, prefix, there=True)
    router_kit.wait_same_fib(lab, host, 90)
    router_kit.wait_forwarding(host)


def wait_prefix(lab: Lab, prefix: str, there: bool, strict: bool = True) -> None:
    """In the FIB, or (not ``strict``) as the VM itself has it.

    With FRR 8.4 a route that bgpd withdraws while zebra starts may stay in zebra's own table.
    AssertionError says what the host and the VM have in its place.
    """

    def in_vm() -> str:
        return routing.in_vm(lab, router_kit.VM, ["vtysh", "-c", f"show ip route {prefix}"])

    def as_in_vm() -> bool:
        return has(lab, prefix) is ("Known via" in in_vm())

    def changes() -> Any:
        return router_kit.listed(router_kit.where(lab))["fib"]

    last = changes()
    while True:
        with contextlib.suppress(LabError):
            wait_for("", lambda: has(lab, prefix) is there or (not strict and as_in_vm()), _LEARN_S, 0.2)
            return
        before, last = last, changes()
        if before == last:
            raise AssertionError(
                f"{prefix} is {'not ' * there}in the FIB, {_LEARN_S} s after its last change: {last}; the VM: {in_vm()}"
            )


def has(lab: Lab, prefix: str) -> bool:
    said = router_kit.where(lab).run(["ip", "-n", router_kit.NETNS, "route", "show", prefix], check=False)
    return bool(said.stdout.strip())


def zebra(lab: Lab) -> str:
    return routing.in_vm(lab, router_kit.VM, ["sh", "-c", "pidof zebra || true"]).strip()


def bfd_asked_for_again(lab: Lab) -> None:
    """With FRR 8.4 an ospfd whose zebra was killed may never ask bfdd again for a neighbour's session: that stays down."""
    asked = ("no ip ospf bfd", "ip ospf bfd", "ip ospf bfd profile lab", "exit")
    commands = [one for port in ("eth0", "eth1") for one in (f"interface {port}", *asked)]
    words = [word for one in ("configure terminal", *commands) for word in ("-c", one)]
    routing.in_vm(lab, router_kit.VM, ["vtysh", *words])


@pytest.mark.timeout(900)
def test_zebra_killed_and_started_again(pisa: Lab) -> None:
    def kill(host: Host) -> None:
        there = router_kit.kernel_routes(host, 4)
        routing.in_vm(pisa, router_kit.VM, ["sh", "-c", "kill -9 $(pidof zebra)"])
        wait_for("zebra to end", lambda: not zebra(pisa), 10, 0.1)
        assert router_kit.kernel_routes(host, 4) == there, "the FIB did not outlive zebra"

    def start(host: Host) -> None:
        again = "zebra -d -M dplane_fpm_nl -u frr -g frr && vtysh -b > /dev/null"
        routing.in_vm(pisa, router_kit.VM, ["sh", "-c", again])

    try:
        survives(pisa, kill, start, strict=False)
    finally:
        if not zebra(pisa):
            start(router_kit.where(pisa))
        bfd_asked_for_again(pisa)
        routing.wait_converged(pisa)
        router_kit.wait_same_fib(pisa, router_kit.where(pisa), 60)


def test_our_daemon_killed_and_started_again(pisa: Lab) -> None:
    def start(host: Host) -> None:
        host.start_daemon()
        host.wait_daemon()
        router_kit.wait_forwarding(host)

    survives(pisa, Host.kill_daemon, start)


@pytest.mark.parametrize("side", ["vm", "host"])
def test_management_link_cut(pisa: Lab, side: str) -> None:
    def cut(host: Host) -> None:
        if side == "vm":
            words = f"ip link set eth2 down; sleep {_CUT_S}; ip link set eth2 up"
            routing.in_vm(pisa, router_kit.VM, ["sh", "-c", f"setsid sh -c '{words}' > /dev/null 2>&1 &"])
        else:
            host.run(["ip", "link", "set", management(host), "down"])

    def mend(host: Host) -> None:
        if side == "host":
            host.run(["sleep", str(_CUT_S)])
            host.run(["ip", "link", "set", management(host), "up"])

    survives(pisa, cut, mend)


def management(host: Host) -> str:
    """Our end of the link to the VM's third interface, its index 4."""
    return next(one for one in router_kit.traces(host).devices if one.endswith(".4"))
