"""The benches' meters through real namespaces: a flow between two, and the two kernel paths."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from vmnet.bench import forward_kernel
from vmnet.bench.child import PIPES, Child
from vmnet.bench.fib_stage import Namespace, veth

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.mark.parametrize(("address", "size"), [("10.9.0.2", 64), ("fd09::2", 1500)])
def test_a_flow_between_two_namespaces(address: str, size: int) -> None:
    one, other = Namespace(), Namespace()
    veth(one, "eth0", 2, other, "eth0", 2)
    for end, number in ((one, 1), (other, 2)):
        end.ip("addr", "add", f"10.9.0.{number}/24", "dev", "eth0")
        end.ip("addr", "add", f"fd09::{number}/64", "dev", "eth0", "nodad")
    argv = [sys.executable, "-m", "vmnet.bench.flow", "--sender", one.path, "--receiver", other.path]
    argv += ["--address", address, "--rate", "2000", "--size", str(size), "--seconds", "0.5"]
    with Child("the flow", subprocess.Popen(argv, **PIPES)) as flow:
        flow.expect("start", lambda line: line.get("event") == "started", 20)
        found = flow.expect("result", lambda line: line.get("event") == "result", 20)
    assert found["sent"] > 0
    assert [found[name] for name in ("lost", "duplicated", "strange", "dropped_here")] == [0, 0, 0, 0]


def test_the_two_paths_are_what_they_are_called() -> None:
    with Child("the paths", subprocess.Popen(forward_kernel.ARGV, **PIPES)) as kernel:
        kernel.expect("ready", lambda line: line.get("event") == "ready", 20)
        for path in ("ours", "plain", "ours", "plain"):
            for address in ("10.2.0.100", "fd02::100"):
                question = {"path": path, "address": address, "size": 64, "seconds": 0.05}
                assert kernel.process.stdin is not None
                kernel.process.stdin.write(json.dumps(question) + "\n")
                kernel.process.stdin.flush()
                found = kernel.expect("result", lambda line: line.get("event") == "result", 20)
                assert found["sent"] == found["arrived"] > 0
                assert (found["counted"] >= found["arrived"]) == (path == "ours"), found
