"""All labs of the router bench at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from vmnet.bench.pisa import Stand
from vmnet.bench.pisa_openflow import TOPOLOGY, FlowStand
from vmnet.bench.pisa_router import RouterStand
from vmnet.bench.pisa_schemes import FlowScheme, RouterScheme, Scheme
from vmnet.bench.pisa_stage import router_stage
from vmnet.lab import Options, lab_up, up


@contextmanager
def stands(name: str, schemes: Sequence[Scheme], keep: bool) -> Iterator[dict[str, Stand]]:
    """By ``lab`` of the schemes, each called ``NAME-LAB``; ``keep`` leaves them up."""
    routers = [one for one in schemes if isinstance(one, RouterScheme)]
    with ExitStack() as stack:
        places = stack.enter_context(router_stage(name, routers, keep))
        found: dict[str, Stand] = {lab: RouterStand(place) for lab, place in places.items()}
        for one in schemes:
            if isinstance(one, FlowScheme):
                called = f"{name}-{one.lab}"
                lab = (
                    up(TOPOLOGY, Options(called))[0]
                    if keep
                    else stack.enter_context(lab_up(TOPOLOGY, called))
                )
                found[one.lab] = FlowStand(lab)
        yield found
