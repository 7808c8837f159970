"""A router's VM dies: its data plane forwards for as long as it was told to, and a VM that comes back in time takes it over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import kit
import pytest
import router_kit
from router_marks import MARKS

from vmnet.lab import Host, Lab, routing
from vmnet.lab.wait import wait_for

pytestmark = MARKS
_KEEP_S = 5


@contextmanager
def dying(lab: Lab, keep_s: int) -> Iterator[Host]:
    """The router, with a time to keep its data plane; afterwards its VM runs again."""
    host = router_kit.forwarding(lab)
    router_kit.settled(lab)
    router_kit.remove(host)
    router_kit.add(host, "--keep", str(keep_s))
    router_kit.wait_forwarding(host)
    # it may be transient: a lab's VM is, until it has migrated
    host.run(["sh", "-c", f"virsh dumpxml {router_kit.VM} | virsh define /dev/stdin"])
    try:
        with router_kit.pinned(lab):
            yield host
    finally:
        if router_kit.VM not in kit.running(host):
            host.run(["virsh", "start", router_kit.VM], timeout=60)
        routing.wait_converged(lab)
        router_kit.wait_forwarding(host)


def destroy(host: Host) -> float:
    host.run(["virsh", "destroy", router_kit.VM])
    return time.monotonic()


def gone(host: Host) -> bool:
    trace = router_kit.traces(host)
    return not trace.namespaces and not any(one.startswith("vmr") for one in trace.devices)


def test_forwards_for_keep_s_and_then_goes(pisa: Lab) -> None:
    with dying(pisa, _KEEP_S) as host:
        with router_kit.flowing_freely(pisa):
            died = destroy(host)
            # pinned routes: the neighbours' own go with their sessions
            wait_for("most of the time", lambda: time.monotonic() > died + _KEEP_S - 1, _KEEP_S + 1, 0.1)
        wait_for("the data plane to go", lambda: gone(host), 10, 0.1)
        assert _KEEP_S - 0.5 < time.monotonic() - died < _KEEP_S + 4


def test_goes_at_once_and_comes_with_a_marked_vm(pisa: Lab) -> None:
    with dying(pisa, 0) as host:
        died = destroy(host)
        wait_for("the data plane to go", lambda: gone(host), 5, 0.05)
        print(f"gone {time.monotonic() - died:.1f} s after the VM")
        host.run(["virsh", "start", router_kit.VM], timeout=60)
        router_kit.wait_forwarding(host, 90)
        routing.wait_converged(pisa)
        router_kit.wait_same_fib(pisa, host)


@pytest.mark.timeout(200)
def test_started_again_in_time_takes_its_data_plane_over(pisa: Lab) -> None:
    with dying(pisa, 120) as host:
        with router_kit.flowing_freely(pisa):
            destroy(host)
            host.run(["virsh", "start", router_kit.VM], timeout=60)
            wait_for("the VM's routes", lambda: router_kit.listed(host)["synchronised"], 90, 0.5)
            routing.wait_converged(pisa)
        router_kit.wait_same_fib(pisa, host)
        assert router_kit.listed(host)["data"] == "pass"
