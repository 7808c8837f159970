"""What decides must not do: pure modules import nothing that acts, and the command line loads nothing it does not use."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("vmnet", "dom0", "hooks", "controller_bridge")
ACTING = {"socket", "subprocess", "pyroute2", "libvirt", "ovs", "ovsdbapp", "time", "asyncio"}
PURE = [
    "controller_bridge.api.report",
    "controller_bridge.api.words",
    "controller_bridge.core.adoption",
    "controller_bridge.core.answers",
    "controller_bridge.core.core",
    "controller_bridge.core.desired",
    "controller_bridge.core.hosts",
    "controller_bridge.core.links",
    "controller_bridge.core.lldp",
    "controller_bridge.core.marks",
    "controller_bridge.core.moves",
    "controller_bridge.core.neighbours",
    "controller_bridge.core.old_ways",
    "controller_bridge.core.places",
    "controller_bridge.core.room",
    "controller_bridge.fabric",
    "controller_bridge.fence",
    "controller_bridge.openflow.action",
    "controller_bridge.openflow.bundle",
    "controller_bridge.openflow.flow",
    "controller_bridge.openflow.group",
    "controller_bridge.openflow.hello",
    "controller_bridge.openflow.match",
    "controller_bridge.openflow.multipart",
    "controller_bridge.openflow.packet",
    "controller_bridge.openflow.text",
    "controller_bridge.openflow.wire",
    "controller_bridge.paths",
    "controller_bridge.topology",
    "controller_bridge.trace",
    "controller_bridge.trees",
    "controller_bridge.rerouters.faucet_acls",
    "controller_bridge.rerouters.faucet_config",
    "controller_bridge.rerouters.faucet_file",
    "controller_bridge.rerouters.faucet_metrics",
    "controller_bridge.rerouters.rest_entries",
    "controller_bridge.follow.decision",
    "controller_bridge.follow.facts",
    "controller_bridge.follow.gather",
    "controller_bridge.follow.places",
    "controller_bridge.follow.rating",
    "controller_bridge.follow.ways",
    "controller_bridge.follow.words",
    "dom0.reach.findings",
    "vmnet.hypervisor.versions",
    "vmnet.pki_usage",
    "vmnet.machine",
    "vmnet.convergence",
    "vmnet.actions",
    "vmnet.verdict",
    "vmnet.plan",
    "vmnet.errors",
    "vmnet.domain_xml",
    "vmnet.store.records",
    "vmnet.hypervisor.events",
    "vmnet.bench.flaps",
    "vmnet.bench.flow_count",
    "vmnet.bench.forward_rows",
    "vmnet.bench.libvirt_job",
    "vmnet.bench.pisa_flow_rows",
    "vmnet.bench.pisa_rows",
    "vmnet.bench.reroute_rows",
    "vmnet.report.pisa_data",
    "vmnet.game.player",
    "vmnet.game.wire",
    "vmnet.game.world",
    "vmnet.lab.places",
    "vmnet.lab.ovn_ports",
    "vmnet.probe.meter",
    "vmnet.probe.wire",
    "controller_bridge.rerouters.ovn_plan",
    "controller_bridge.rerouters.ovn_settings",
    "dom0.claim",
    "dom0.dataplane.announce",
    "dom0.dataplane.bpf_asm",
    "dom0.dataplane.frames",
    "dom0.dataplane.gate_program",
    "dom0.dataplane.names",
    "dom0.dataplane.stranded",
    "dom0.dataplane.traffic_program",
    "dom0.host_facts",
    "dom0.router.bfd",
    "dom0.router.hello",
    "dom0.router.keepalive",
    "dom0.router.keepalive_handover",
    "dom0.router.packet",
    "dom0.router.session",
    "dom0.fib.address",
    "dom0.fib.framing",
    "dom0.fib.link",
    "dom0.fib.marks",
    "dom0.fib.message",
    "dom0.fib.neighbour",
    "dom0.fib.nexthop",
    "dom0.fib.route",
    "dom0.fib.rule",
    "dom0.fib.settings",
    "dom0.fib.settle",
    "dom0.fib.templates",
    "dom0.fib.waiting",
]


def source(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)


def imports(module: str) -> set[str]:
    """Modules that ``module`` names in import statements, but for those only a type checker follows."""
    path = source(module)
    assert path is not None, module
    return set(_named(ast.parse(path.read_text()), module))


def _named(tree: ast.AST, module: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            base = str(node.module)
            for one in node.names:
                whole = f"{base}.{one.name}"
                yield whole if source(whole) else base
        else:
            yield from _named(node, module)


def closure(module: str) -> set[str]:
    seen: set[str] = set()
    todo = [module]
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        if here.split(".")[0] in OURS:
            todo += imports(here)
    return seen


@pytest.mark.parametrize("module", PURE)
def test_pure(module: str) -> None:
    assert not {one.split(".")[0] for one in closure(module)} & ACTING


def test_the_walk_does_find_what_acts() -> None:
    assert "socket" in closure("dom0.dataplane.sender")
    assert "asyncio" in closure("dom0.source")


def test_scapy_is_for_tests() -> None:
    for package in OURS:
        for path in (ROOT / package).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            named = set(_named(ast.parse(path.read_text()), module))
            assert not [one for one in named if one.split(".")[0] == "scapy"], path


HEAVY = ("scapy", "libvirt", "pyroute2", "ovs", "ovsdbapp", "matplotlib", "numpy", "asyncio", "rich", "yaml")
HELP = f"""
import sys
from vmnet.cli.main import main
sys.argv = ["vmnet", "--help"]
try:
    main()
except SystemExit:
    pass
print("LOADED", *[one for one in {HEAVY!r} if one in sys.modules])
"""


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]
