"""What `vmnet doctor` concludes from what its probes observed, and the probes that need no second host."""

import asyncio
import errno
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from dom0 import doctor
from dom0.reach import findings, probes
from dom0.reach.findings import Reach, Tunnel
from hooks.install import HookStatus
from vmnet.cli import doctor as command

OPEN = {"TCP 6642 (daemon)": Reach.OPEN, "TCP 49152 (VM's memory)": Reach.REFUSED}
WHOLE = Tunnel(largest_bytes=1514)


@pytest.mark.parametrize(
    ("number", "reach", "closed"),
    [
        (errno.ECONNREFUSED, Reach.REFUSED, False),
        (errno.EHOSTUNREACH, Reach.REJECTED, True),
        (errno.ENETUNREACH, Reach.NO_ROUTE, True),
        (errno.EPERM, Reach.FORBIDDEN, True),
        (errno.ETIMEDOUT, Reach.SILENT, True),
        (errno.EMFILE, Reach.UNKNOWN, False),
    ],
)
def test_the_kernels_answers_to_a_connection(number: int, reach: Reach, closed: bool) -> None:
    assert findings.classify(OSError(number, "")) is reach
    assert reach.closed is closed


def test_a_deadline_of_ours_counts_as_silence() -> None:
    assert findings.classify(TimeoutError()) is Reach.SILENT
    assert findings.classify(None) is Reach.OPEN


def test_open_ports_are_named() -> None:
    row = findings.ports("b", OPEN, WHOLE, 6643)
    assert row["ok"]
    assert row["detail"] == "TCP 6642 (daemon), TCP 49152 (VM's memory), UDP 6643 (tunnel) can be reached"


def test_each_closed_port_is_named_with_how_it_is_closed() -> None:
    tcp = {**OPEN, "TCP 49152 (VM's memory)": Reach.SILENT, "TCP 16514 (libvirt)": Reach.REJECTED}
    row = findings.ports("b", tcp, Tunnel(), 6643)
    assert not row["ok"]
    for part in (
        "TCP 49152 (VM's memory): no answer: a firewall drops it",
        "TCP 16514 (libvirt): rejected",
        "UDP 6643 (tunnel): no frame arrived",
        "open them on b",
    ):
        assert part in row["detail"]
    assert "6642" not in row["detail"]


def test_a_tunnel_that_could_not_be_tested_is_not_called_closed() -> None:
    row = findings.ports("b", OPEN, Tunnel(reason="another program uses UDP 6643"), 6643)
    assert row["ok"] and not row["tested"]
    assert row["detail"].endswith("not tested: another program uses UDP 6643")


def test_mtu() -> None:
    assert "in one piece" in findings.mtu("b", 9000, WHOLE, 1500, 50)["detail"]
    assert findings.mtu("b", 1500, WHOLE, 1500, 50)["detail"].startswith(
        "1500: full-size frames are fragmented"
    )
    lossy = findings.mtu("b", 9000, Tunnel(largest_bytes=60), 1500, 50)
    assert not lossy["ok"] and "something on the way carries less" in lossy["detail"]
    assert findings.mtu("b", None, Tunnel(reason="x"), 1500, 50)["ok"]


@pytest.mark.parametrize(
    ("error", "uri", "hint"),
    [
        ("Cannot read CA certificate '/etc/pki/CA/cacert.pem'", "qemu+tls://b/system", "vmnet pki libvirt"),
        ("Certificate /etc/pki/libvirt/clientcert.pem usage does not permit key encipherment", "qemu+tls://b/", "pki show"),
        ("unable to connect to server at 'b:16514': Connection refused", "qemu+tls://b/system", "libvirtd-tls.socket"),
        ("Connection refused", "qemu+tcp://b/system", "is libvirtd's socket there enabled"),
        ("root@b: Permission denied (publickey)", "qemu+ssh://root@b/system", "ssh-copy-id"),
        ("Host key verification failed.", "qemu+ssh://root@b/system", "ssh root@ADDRESS true"),
        ("something new", "qemu+ssh://root@b/system", ""),
    ],
)  # fmt: skip
def test_hints_for_libvirts_errors(error: str, uri: str, hint: str) -> None:
    found = findings.libvirt_hint(error, uri)
    assert hint in found and bool(found) is bool(hint)


def _chain(**fields: Any) -> dict[str, Any]:
    return {"chain": {"family": "inet", "table": "filter", "name": "input", "hook": "input", **fields}}


def _rule(*expressions: dict[str, Any]) -> dict[str, Any]:
    return {"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": list(expressions)}}


def test_chains_that_drop_by_default() -> None:
    def of(*objects: dict[str, Any]) -> list[str]:
        return findings.input_policy({"nftables": [{"metainfo": {}}, *objects]})

    match = {"match": {}}
    assert of(_chain(policy="drop")) == ["inet filter input"]
    assert of(_chain(policy="accept")) == []
    assert of(_chain(policy="drop", hook="forward")) == []
    assert of(_chain(policy="accept"), _rule({"counter": {}}, {"reject": {}})) == ["inet filter input"]
    assert of(_chain(policy="accept"), _rule({"drop": None}), _rule({"accept": None})) == []
    assert of(_chain(policy="accept"), _rule(match, {"drop": None})) == []
    assert findings.input_policy({}) == []
    assert findings.firewall(["inet filter input"])["detail"].count("inet filter input") == 1
    unread = findings.firewall(None)
    assert unread["ok"] and not unread["tested"] and "could not be read" in unread["detail"]


def test_hooks_that_libvirt_has_not_seen_are_a_fault() -> None:
    def row(state: str, late: bool = False) -> dict[str, Any]:
        return doctor.hooks_row(HookStatus("qemu", Path("/x/50-vmnet"), state, reload_needed=late))

    assert row("installed")["ok"] and row("modified")["ok"]
    assert not row("absent")["ok"] and "vmnet hooks install" in row("absent")["detail"]
    assert not row("foreign")["ok"]
    assert not row("installed", late=True)["ok"]
    assert "try-reload-or-restart" in row("installed", late=True)["detail"]


def test_tcp_probe_on_loopback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert asyncio.run(probes.tcp("127.0.0.1", port)) is Reach.OPEN
    assert asyncio.run(probes.tcp("127.0.0.1", port)) is Reach.REFUSED


def test_mtu_of_a_route() -> None:
    assert probes.path_mtu("127.0.0.1") == min(65535, int(Path("/sys/class/net/lo/mtu").read_text()))


def test_libvirt_is_asked_in_a_child_with_a_deadline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = asyncio.run(probes.libvirt("test:///default"))
    assert answer.ok and answer.text.startswith("libvirt ")
    refused = asyncio.run(probes.libvirt("qemu+unix:///system?socket=/nonexistent/sock"))
    assert not refused.ok and "/nonexistent/sock" in refused.text
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(probes, "_LIBVIRT_S", 0.3)
    assert asyncio.run(probes.libvirt("test:///default")) == probes.LibvirtAnswer(
        False, "no answer within 0.3 s"
    )


def test_ssh_does_not_ask_for_a_password() -> None:
    assert probes._silent("qemu+ssh://root@b/system") == "qemu+ssh://root@b/system?no_tty=1"
    assert probes._silent("qemu+ssh://b/system?keyfile=x") == "qemu+ssh://b/system?keyfile=x&no_tty=1"
    assert probes._silent("qemu+tls://b/system") == "qemu+tls://b/system"


def test_what_was_not_tested_is_not_called_good() -> None:
    rows = [
        findings.firewall([]),
        findings.firewall(None),
        findings.mtu("b", None, Tunnel(reason="x"), 1500, 50),
    ]
    assert [command.mark(one) for one in rows] == ["ok", "?", "?"]
    assert command.mark(findings.row("libvirt", False, "no answer")) == "BAD"
