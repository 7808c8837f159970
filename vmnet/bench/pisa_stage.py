"""The labs of the router bench: ``NAME-standard``, whose VM forwards itself, and ``NAME-separation``. Both run all the time.

Neighbours must not forget the router of the lab that is not under test, so its VM is not suspended.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from vmnet.bench.flaps import ASKED, Look, look
from vmnet.bench.host_json import ask
from vmnet.bench.pisa_schemes import RouterScheme
from vmnet.bench.stage import Place, listen
from vmnet.errors import LabError, VmnetError
from vmnet.lab import Host, Lab, Options, lab_up, routing, up

ROUTER, CLIENT, SERVER = "vr1", "client", "server"
MANAGEMENT = "52:54:00:00:01:03"
"""The VM's interface to the host that it is on."""
READY_S = 90.0
_GUESTS = 1.5
SERVER_ADDRESS = {4: "10.2.0.100", 6: "fd02::100"}
ROUTER_ADDRESS = {4: "10.1.0.1", 6: "fd01::1"}
_LOOK_S = 15.0
_ASK_AGAIN_S = 0.25


@dataclass(frozen=True, slots=True)
class RouterPlace(Place):
    """``separated``: the host forwards for the VM."""

    separated: bool = False

    def ready(self) -> Host:
        """Where the VM runs, once all sessions are up, all routes learned, and data goes the way it should. Raises LabError."""
        limit_s = ready_s(self.lab)
        deadline = time.monotonic() + limit_s
        while lacks := self._missing():
            if time.monotonic() > deadline:
                raise LabError(
                    f"waited {limit_s:g} s for the routers of lab {self.lab.name}: {'; '.join(lacks)}"
                )
            time.sleep(_ASK_AGAIN_S)
        return self.settled()

    def _missing(self) -> list[str]:
        host = self.settled()
        lacks = [*routing.missing(self.lab, CLIENT), *routing.missing(self.lab, SERVER)]
        if self.separated:
            lacks += self._plane_lacks(host)
        return lacks

    def _plane_lacks(self, host: Host) -> list[str]:
        """A VM that is no router yet, or none any more since it was booted anew, becomes one."""
        plane = self.plane(host)
        if plane is None:
            self.separate()
            return [f"{self.vm} has no data plane on {host.name}"]
        if plane["data"] != "pass" or not plane["synchronised"] or not plane["vm_here"]:
            return [f"data plane on {host.name}: {plane['data']}, {plane['fib']['routes']} routes"]
        return []

    def plane(self, host: Host) -> dict[str, Any] | None:
        """What ``vmnet router list`` says there. LabError if the daemon does not answer."""
        found = ask(host, "router", "list")["routers"]
        return next((one for one in found if one["name"] == self.vm), None)

    def separate(self) -> None:
        """The VM becomes a router, and its host forwards."""
        ask(self.settled(), "router", "add", self.vm, "--management", MANAGEMENT)

    def route_by_hand(self) -> None:
        """The client's way to the server does not depend on its sessions: what is measured is the router alone."""
        for version, address in SERVER_ADDRESS.items():
            via = ["via", ROUTER_ADDRESS[version]]
            self.lab.node(CLIENT).run(["ip", f"-{version}", "route", "replace", address, *via])

    def looks(self) -> list[Look]:
        """At the client and at the server."""
        return [_look(self.lab, name) for name in (CLIENT, SERVER)]


def _look(lab: Lab, name: str) -> Look:
    answers = lab.node(name).vtysh(*ASKED, timeout=_LOOK_S)
    at_s, position, decoder = time.monotonic(), 0, json.JSONDecoder()
    found: dict[str, Any] = {}
    for command in ASKED:
        rest = answers[position:].lstrip()
        try:
            found[command], used = decoder.raw_decode(rest)
        except ValueError:
            raise LabError(f"the FRR of {name} answers no JSON to '{command}': {rest[:100]}") from None
        position = len(answers) - len(rest) + used
    return look(found, at_s)


def ready_s(lab: Lab) -> float:
    """How long its routers may take to converge: 90 s, or half as long again as a guest may take to boot on such hosts."""
    return max(READY_S, *(_GUESTS * host.limits.guest_s for host in lab.hosts))


@contextmanager
def router_stage(name: str, schemes: Iterable[RouterScheme], keep: bool) -> Iterator[dict[str, RouterPlace]]:
    """The labs that the schemes need, converged; ``keep`` leaves them up."""
    with ExitStack() as stack:
        places: dict[str, RouterPlace] = {}
        for scheme in schemes:
            if scheme.lab not in places:
                lab = _lab(stack, f"{name}-{scheme.lab}", scheme, keep)
                events = {host.name: stack.enter_context(listen(host)) for host in lab.hosts}
                places[scheme.lab] = RouterPlace(lab, events, ROUTER, scheme.separated)
        for place in places.values():
            _prepare(place)
        yield places


def _lab(stack: ExitStack, name: str, scheme: RouterScheme, keep: bool) -> Lab:
    on = scheme.separated
    if keep:
        return up(scheme.topology, Options(name, hooks=on, daemon=on))[0]
    return stack.enter_context(lab_up(scheme.topology, name, hooks=on, daemon=on))


def _prepare(place: RouterPlace) -> None:
    place.route_by_hand()
    routing.wait_converged(place.lab, ready_s(place.lab))
    place.ready()


def mend(place: RouterPlace) -> None:
    """After a run that broke the VM: a fresh one. What fails here fails the next run, too, and is said there."""
    with contextlib.suppress(VmnetError):
        if not place.answers():
            place.reboot()
