"""The third path of ``vmnet bench forward``: the router VM of lab ``pisa`` forwards itself, and has nothing else to do."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmnet.bench.child import PIPES, Child
from vmnet.bench.pisa_stage import CLIENT, ROUTER, SERVER, RouterPlace
from vmnet.errors import LabError
from vmnet.lab import lab_up, schema

_RUN_S = 60.0


@dataclass(frozen=True, slots=True)
class RouterVm:
    """Suspended but while it is measured: it would take a CPU from the other paths."""

    place: RouterPlace

    @contextmanager
    def awake(self) -> Iterator[None]:
        host = self.place.settled()
        host.run(["virsh", "--quiet", "resume", ROUTER])
        try:
            if not self.place.answers():
                raise LabError(f"{ROUTER} does not answer after it was resumed")
            yield
        finally:
            self.suspend()

    def suspend(self) -> None:
        self.place.settled().run(["virsh", "--quiet", "suspend", ROUTER])

    def blast(self, address: str, packet_bytes: int, seconds: float) -> dict[str, Any]:
        """As ``vmnet.bench.saturation`` says."""
        return self._run("saturation", ["--size", packet_bytes, "--seconds", seconds], address)

    def loses(self, address: str, packet_bytes: int, rate_pps: int, seconds: float) -> int:
        """How many packets of a flow at that rate."""
        words = ["--rate", rate_pps, "--size", packet_bytes, "--seconds", seconds]
        found = self._run("flow", words, address)
        # a sender that did not keep the rate up has not shown that the VM does
        kept = found["sent"] >= 0.9 * rate_pps * seconds
        return int(found["lost"]) if kept else max(1, int(found["lost"]))

    def _run(self, module: str, words: list[Any], address: str) -> dict[str, Any]:
        ends = [self.place.lab.node(name).netns_path for name in (CLIENT, SERVER)]
        argv = [sys.executable, "-m", f"vmnet.bench.{module}", "--sender", ends[0], "--receiver", ends[1]]
        argv += ["--address", address, *words]
        with Child(
            f"the {module} of the VM's path", subprocess.Popen([str(w) for w in argv], **PIPES)
        ) as child:
            return child.expect("result", lambda line: "sent" in line, _RUN_S)


@contextmanager
def router_vm(name: str) -> Iterator[RouterVm]:
    """Lab ``pisa`` without routing daemons at its neighbours: nothing for the VM to learn, only to forward."""
    with tempfile.TemporaryDirectory() as folder, lab_up(_topology(Path(folder)), name) as lab:
        place = RouterPlace(lab, {}, ROUTER)
        place.route_by_hand()
        vm = RouterVm(place)
        vm.suspend()
        yield vm


def _topology(folder: Path) -> str:
    document = schema.load_document(schema.find("pisa")[1])
    for name in (CLIENT, SERVER):
        del document["clients"][name]["frr"]
    for host in document["hosts"].values():
        host["daemon"] = host["hooks"] = False
    file = folder / "pisa-quiet.yaml"
    # JSON is YAML
    file.write_text(json.dumps(document))
    return str(file)
