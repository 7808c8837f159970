"""The routers of a lab, in nodes and in VMs: asking them, and waiting until they have converged."""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Iterator, Sequence
from functools import partial
from ipaddress import ip_interface

from vmnet.errors import LabError
from vmnet.lab import sessions
from vmnet.lab.lab import Lab
from vmnet.lab.node import Node
from vmnet.lab.wait import wait_for

ANSWER_PORT = 2323
"""Where a router VM runs what it is asked (guest/init, guest/answer)."""
CONVERGED_S = 120.0
"""An emulated router VM that lost its sessions took up to 34 s to withdraw its 10,000 routes and learn them again (20 migrations)."""
_MAX_BYTES = 64 << 20
_STATUS = "\nvmnet-status "


def in_vm(lab: Lab, vm: str, argv: Sequence[str], limit_s: float = 30.0, via: str | None = None) -> str:
    """Run a program inside a router VM; its output.

    It is asked over TCP from node ``via``, by default the first neighbour of the VM, so it works wherever the VM is and while it
    moves. Raises LabError when the program fails, or the answer takes longer than ``limit_s`` seconds.
    """
    node, address = _way(lab, vm, via)
    what = f"'{shlex.join(argv)[:160]}' in {vm}"
    try:
        answer = node.call(lambda: _asked(address, shlex.join(argv), limit_s))
    except TimeoutError:
        raise LabError(
            f"{what}: no answer within {limit_s:g} s (asked from {node.name} at {address})"
        ) from None
    except OSError as error:
        raise LabError(f"{what}, asked from {node.name} at {address}: {error}") from None
    output, found, status = answer.rpartition(_STATUS)
    if not found or not status.strip().isdigit():
        raise LabError(f"{what}: the answer ends early, after {len(answer)} characters")
    if int(status):
        raise LabError(
            f"{what} failed with code {int(status)}: {'; '.join(output.strip().splitlines())[-300:]}"
        )
    return output


def _way(lab: Lab, vm: str, via: str | None) -> tuple[Node, str]:
    """A node on a LAN of the VM, and the VM's IPv4 address there."""
    for own in (ip_interface(a) for port in lab.vm(vm).interfaces for a in port.addresses):
        for node in lab.nodes.values():
            if node.spec.kind == "host" or via not in (None, node.name):
                continue
            theirs = [ip_interface(a) for group in node.spec.addresses.values() for a in group]
            if own.version == 4 and any(own.network == one.network for one in theirs):
                return node, str(own.ip)
    raise LabError(f"{via or 'no client or router'} is on no LAN of {vm}: it cannot be asked from there")


def _asked(address: str, line: str, limit_s: float) -> str:
    deadline = time.monotonic() + limit_s
    with socket.create_connection((address, ANSWER_PORT), limit_s) as connection:
        connection.sendall(f"{line}\n".encode())
        return b"".join(_received(connection, deadline)).decode(errors="replace")


def _received(connection: socket.socket, deadline: float) -> Iterator[bytes]:
    total = 0
    while (left_s := deadline - time.monotonic()) > 0:
        connection.settimeout(left_s)
        data = connection.recv(65536)
        total += len(data)
        if not data or total > _MAX_BYTES:
            return
        yield data
    raise TimeoutError


def view(lab: Lab, router: str, limit_s: float = 30.0) -> sessions.View:
    """What the FRR of a node or a VM says. Raises LabError when it does not answer."""
    words = [word for command in sessions.VIEWS for word in ("-c", command)]
    if router in lab.topology.vms:
        answers = in_vm(lab, router, ["vtysh", *words], limit_s)
    else:
        answers = lab.node(router).vtysh(*sessions.VIEWS, timeout=limit_s)
    try:
        return sessions.parse(answers)
    except ValueError:
        raise LabError(f"the FRR of {router} answers no JSON: {answers.strip()[:100]}") from None


def routers(lab: Lab) -> list[str]:
    """Nodes with FRR, then VMs with FRR (which are slower to ask)."""
    vms = [vm.name for vm in lab.topology.vms.values() if vm.image == "router"]
    return [node.name for node in lab.nodes.values() if node.spec.frr] + vms


def expected(lab: Lab, router: str) -> sessions.Expected:
    """What the other nodes announce: loopback addresses by OSPF, the rest by BGP."""
    others = [
        (node.spec, node.spec.frr) for node in lab.nodes.values() if node.spec.frr and node.name != router
    ]
    loopbacks = [ip_interface(a) for spec, _ in others for a in spec.addresses.get("lo", ())]
    return sessions.Expected(
        sum(frr.announce_ipv4 for _, frr in others),
        sum(frr.announce_ipv6 for _, frr in others),
        tuple(str(one.network) for one in loopbacks if one.version == 4),
    )


def missing(lab: Lab, router: str) -> list[str]:
    """What one router has not got yet of its sessions and of what the others announce."""
    try:
        return [f"{router}: {one}" for one in sessions.missing(view(lab, router), expected(lab, router))]
    except LabError as error:  # not up yet
        return [f"{router}: {error.message}"]


def _converged(lab: Lab, router: str) -> bool:
    return not missing(lab, router)


def wait_converged(lab: Lab, limit_s: float = CONVERGED_S) -> None:
    """Until each router of the lab has every session up and has learned every announced route.

    Raises LabError saying what is missing after ``limit_s`` seconds.
    """
    deadline = time.monotonic() + limit_s
    for router in routers(lab):
        try:
            wait_for("", partial(_converged, lab, router), deadline - time.monotonic(), 0.25)
        except LabError:
            # another router's sessions are often why this one has no routes
            lacks = "; ".join(one for every in routers(lab) for one in missing(lab, every))
            raise LabError(f"waited {limit_s:g} s for the routers to converge: {lacks}") from None
