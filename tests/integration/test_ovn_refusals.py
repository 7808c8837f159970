"""What the OVN rerouter says when it cannot: one line that names what is wrong; and what is then left on the port."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from dataplane_kit import GUEST, Host, isolated, until
from ovn_kit import SCHEMAS, SWITCH, VM_PORT, Ovn, text
from ovs_kit import daemon, folder, listens
from test_ovn_rerouter import MOVE, Daemon, described, once, pytestmark
from test_store_tls import pki

from controller_bridge.rerouters.base import Move
from controller_bridge.rerouters.ovn_plan import KEPT
from vmnet.errors import ConfigError, RefusedError, UnavailableError, WaitTimeoutError

__all__ = ["pytestmark"]
MAC = text(GUEST)
LIMIT_S = 1.0


def there(requested: str = "a") -> Ovn:
    ovn = Ovn(requested)
    ovn.tap("a")
    ovn.ready()
    return ovn


@isolated()
def test_what_is_refused_leaves_the_port_as_it_is() -> None:
    ovn = there()
    ovn.central.nbctl(
        "lsp-add",
        SWITCH,
        "up",
        "--",
        "lsp-set-type",
        "up",
        "router",
        "--",
        "lsp-set-addresses",
        "up",
        "02:00:00:00:00:09",
    )
    before = described(ovn)
    for move, more, words in (
        (
            Move("m", "vm", "host-a", "host-b", ("02:00:00:00:00:01",)),
            {},
            "OVN has no port with the address 02:00:00:00:00:01; name it",
        ),
        (
            Move("m", "vm", "host-a", "host-b", ("02:00:00:00:00:09",)),
            {},
            "port up is no VM's: its type is 'router'",
        ),
        (Move("m", "vm", "host-a", "host-x", (MAC,)), {}, "OVN has no chassis 'host-x'; it has a, b, c"),
        (Move("m", "vm", "host-b", "host-a", (MAC,)), {}, "port vm-port is on chassis a, not on b"),
        (MOVE, {"ports": {MAC: "nosuch"}}, "OVN has no port 'nosuch'"),
        (MOVE, {"confirm": ["gateway"]}, "OVN has no chassis 'gateway'"),
    ):
        with pytest.raises(RefusedError, match=words):
            once(ovn, "prepare", move, **more)
        assert described(ovn) == before
    for step in ("cut_over", "finish"):
        with pytest.raises(
            RefusedError,
            match="port vm-port has been prepared by no migration, not by move-1; prepare it first",
        ):
            once(ovn, step)
    once(ovn, "roll_back")
    assert described(ovn) == before


@isolated()
def test_a_port_that_others_hold() -> None:
    ovn = there()
    ovn.central.nbctl("set", "logical_switch_port", VM_PORT, 'options:requested-chassis="a,c"')
    with pytest.raises(
        RefusedError, match="port vm-port is on several chassis already: a,c; somebody else moves it"
    ):
        once(ovn, "prepare")
    ovn.central.nbctl(
        "set", "logical_switch_port", VM_PORT, "options:requested-chassis=a", f"external_ids:{KEPT}=rubbish"
    )
    for step in ("prepare", "cut_over", "finish", "roll_back"):
        with pytest.raises(
            RefusedError, match=f"port vm-port: its external_ids:{KEPT} is not as vmnet wrote it; set its"
        ):
            once(ovn, step)
    ovn.central.nbctl("remove", "logical_switch_port", VM_PORT, "external_ids", KEPT)
    ovn.tap("b")
    once(ovn, "prepare")
    held = described(ovn)
    other = Move("move-2", *list(vars(MOVE).values())[1:])
    for step, words in (
        ("prepare", "moves already"),
        ("cut_over", "by migration move-1, not"),
        ("finish", "by migration move-1, not"),
    ):
        with pytest.raises(RefusedError, match=words):
            once(ovn, step, other)
    once(ovn, "roll_back", other)
    assert described(ovn) == held


@isolated()
def test_one_address_on_two_ports() -> None:
    ovn = there()
    ovn.central.nbctl(
        "ls-add", "lan2", "--", "lsp-add", "lan2", "twin", "--", "lsp-set-addresses", "twin", MAC
    )
    with pytest.raises(
        RefusedError, match=f"{MAC} is the address of several ports: twin, vm-port; choose one"
    ):
        once(ovn, "prepare")
    ovn.tap("b")
    once(ovn, "prepare", ports={MAC.upper(): VM_PORT})
    assert ovn.central.binding() == ("a", ["b"])


@isolated()
def test_a_destination_that_does_not_take_the_port() -> None:
    ovn = there()
    before = described(ovn)
    with pytest.raises(
        WaitTimeoutError,
        match="within 1 s port vm-port was not taken by chassis b as well; see that ovn-northd",
    ):
        once(ovn, "prepare", limit_s=LIMIT_S)
    once(ovn, "roll_back")
    assert described(ovn) == before


@isolated()
def test_a_chassis_that_does_not_confirm() -> None:
    ovn = there()
    before = described(ovn)
    ovn.tap("b")
    once(ovn, "prepare")
    controller = ovn.chassis["b"].controller
    assert controller is not None
    controller.send_signal(signal.SIGSTOP)
    with pytest.raises(
        WaitTimeoutError, match=r"within 1 s chassis b did not confirm configuration [0-9]+; see"
    ):
        once(ovn, "prepare", limit_s=LIMIT_S)
    controller.send_signal(signal.SIGCONT)
    once(ovn, "roll_back")
    assert described(ovn) == before


@isolated()
def test_a_destination_that_dies() -> None:
    """Everything is as before; what it claimed is OVN's to know, and the error says so."""
    ovn = there()
    before = described(ovn)
    ovn.tap("b")
    once(ovn, "prepare")
    ovn.chassis["b"].kill_controller()
    with pytest.raises(
        WaitTimeoutError,
        match="port vm-port was not left by chassis b; all else is done; if that host is gone",
    ):
        once(ovn, "roll_back", limit_s=LIMIT_S)
    assert described(ovn) == before
    ovn.central.sbctl("chassis-del", "b")
    assert ovn.central.binding() == ("a", [])


@isolated()
def test_a_destination_that_dies_after_cut_over() -> None:
    ovn = there()
    before = described(ovn)
    ovn.tap("b")
    once(ovn, "prepare")
    once(ovn, "cut_over")
    ovn.chassis["b"].kill_controller()
    once(ovn, "roll_back", limit_s=LIMIT_S)
    assert described(ovn) == before
    assert ovn.central.binding() == ("a", [])


@isolated()
def test_a_source_that_dies_after_the_vm_has_left() -> None:
    ovn = there()
    ovn.tap("b")
    once(ovn, "prepare")
    ovn.chassis["a"].kill_controller()
    once(ovn, "finish", limit_s=LIMIT_S)
    assert ovn.central.binding() == ("b", [])


@isolated()
def test_a_database_that_goes_and_comes_back() -> None:
    ovn = there()
    ovn.tap("b")
    daemon = Daemon(ovn, limit_s=LIMIT_S)
    daemon.do("prepare")
    ovn.central.kill("nb")
    with pytest.raises(
        UnavailableError, match=r"OVN's northbound database at unix:.*nb/sock (does not answer|is busy)"
    ):
        daemon.do("cut_over")
    with pytest.raises(
        UnavailableError,
        match=r"OVN's northbound database at unix:.*nb/sock: unix:.*No such file.*; see that its server",
    ):
        once(ovn, "cut_over")
    ovn.central.start("nb")
    ovn.central.nbctl("--wait=hv", "sync")  # northd takes its time to come back
    daemon.do("cut_over")
    daemon.do("finish")
    daemon.close()
    assert ovn.central.binding() == ("b", [])


@isolated()
def test_servers_that_are_something_else() -> None:
    ovn = there()
    with pytest.raises(UnavailableError, match="it has no database OVN_Northbound"):
        once(ovn, "prepare", northbound=ovn.central.remote("sb"))
    silent = socket.create_server(("127.0.0.1", 0))
    mute = f"tcp:127.0.0.1:{silent.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="no answer"):
        once(ovn, "prepare", northbound=mute)
    assert time.monotonic() - began < 10
    ovn.tap("b")
    once(
        ovn, "prepare", northbound=f"{mute},{ovn.central.remote('nb')}", limit_s=20
    )  # the member that answers


@isolated()
def test_an_ovn_that_is_too_old() -> None:
    ovn = there()
    at = Path(folder()) / "old"
    at.mkdir()
    schema = json.loads((SCHEMAS / "ovn-sb.ovsschema").read_text())
    del schema["tables"]["Port_Binding"]["columns"]["additional_chassis"]
    (at / "schema").write_text(json.dumps(schema))
    subprocess.run(["ovsdb-tool", "create", at / "db", at / "schema"], check=True)
    daemon(Host(), at, "ovsdb-server", "db", f"--remote=punix:{at}/sock")
    until(lambda: listens(at / "sock"), 10, "it listens")
    with pytest.raises(
        RefusedError,
        match=r"has no column Port_Binding.additional_chassis \(schema .*\); upgrade OVN: 22.06 has it",
    ):
        once(ovn, "prepare", southbound=f"unix:{at}/sock")


@isolated()
def test_over_tls() -> None:
    ovn = there()
    ovn.tap("b")
    at = Path(folder())
    for name in ("ours", "other"):
        pki(at, name)
    ovn.central.kill("nb")
    files = (
        f"--private-key={at}/ours-host.key",
        f"--certificate={at}/ours-host.pem",
        f"--ca-cert={at}/ours-ca.pem",
    )
    ovn.central.start("nb", "--remote=pssl:6641:127.0.0.1", *files)
    ovn.central.nbctl("--wait=hv", "sync")
    tls = {"northbound": "ssl:127.0.0.1:6641", "tls_ca": f"{at}/ours-ca.pem"}
    with ovn.central.host:
        with pytest.raises(UnavailableError, match=r"ssl:127\.0\.0\.1:6641"):
            once(
                ovn, "prepare", tls_certificate=f"{at}/other-host.pem", tls_key=f"{at}/other-host.key", **tls
            )
        once(ovn, "prepare", tls_certificate=f"{at}/ours-host.pem", tls_key=f"{at}/ours-host.key", **tls)
        with pytest.raises(ConfigError, match=r"no TLS file /nosuch\.pem"):
            once(ovn, "prepare", tls_certificate="/nosuch.pem", tls_key=f"{at}/ours-host.key", **tls)
    assert ovn.central.binding() == ("a", ["b"])
