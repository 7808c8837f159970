"""A router's data plane that is made beside its running VM: until the VM is behind it, it is not heard."""

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from dataplane_kit import CLIENT, ETHERTYPE, Guest, Host, Tap, Traffic, bridge, ip, isolated, until, veth

from dom0 import bridges
from dom0.dataplane import classifier, netns
from dom0.router.registry import Routers
from vmnet.config import Config
from vmnet.domain_xml import DomainInfo, Interface
from vmnet.errors import RefusedError
from vmnet.hypervisor.domains import Domains
from vmnet.router import RouterSpec
from vmnet.store import Store, StoreSettings

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
MAC, MANAGEMENT = "52:54:00:00:0a:01", "52:54:00:00:0a:02"
VM = DomainInfo(
    name="vr1",
    uuid="11111111-2222-4333-8444-555555555555",
    driver="kvm",
    machine="pc",
    arch="x86_64",
    vcpus=1,
    memory_kib=1 << 16,
    interfaces=(
        Interface(MAC, "bridge", bridge="left", target_dev="vnet0"),
        Interface(MANAGEMENT, "bridge", bridge="mgmt", target_dev="vnet1"),
    ),
    router=RouterSpec(MANAGEMENT),
)
TO_VM = bytes.fromhex(MAC.replace(":", "")) + CLIENT + ETHERTYPE
FROM_VM = CLIENT + bytes.fromhex(MAC.replace(":", "")) + ETHERTYPE


class Beside:
    """A host with the VM's taps in its bridges, and a client on the first one."""

    def __init__(self) -> None:
        os.system("mount -t tmpfs tmpfs /run/netns")
        self.host, client = Host(), Host()
        veth(self.host, "up1", client, "eth0")
        self.host.__enter__()
        bridge("left", "up1")
        bridge("mgmt")
        self.tap, self.management = Tap("vnet0", queue=60_000), Tap("vnet1")
        for tap, lan in (("vnet0", "left"), ("vnet1", "mgmt")):
            ip("link", "set", tap, "master", lan)
            classifier.make_ready(tap)  # as the daemon does when a VM starts
        with client:
            self.client = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.client.bind(("eth0", 0))
        self.tap.write(FROM_VM.ljust(60, b"\0"))  # the bridge knows where it is

    def got(self) -> list[int]:
        """The numbers of the client's frames that the VM has got since it was asked last."""
        return numbers(self.tap.drain())


@asynccontextmanager
async def routers(tmp_path: Path) -> AsyncIterator[Routers]:
    async with await Store.open(StoreSettings("a", tmp_path / "state", tmp_path / "run")) as store:
        # the VM runs and is known: libvirt is asked nothing
        made = Routers(Config(), cast(Domains, None), store)
        yield made
        await made.forget(VM.uuid)


def then(function: Callable[..., Any], also: Callable[[], None]) -> Callable[..., Any]:
    async def both(*args: Any) -> Any:
        result = await function(*args)
        also()
        return result

    return both


def namespace_speaks() -> None:
    """As its kernel does by itself in the first second or so (MLD)."""

    def say() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind(("eth0", 0))
            sock.send((b"\x33\x33\0\0\0\x16" + FROM_VM[6:]).ljust(60, b"\0"))

    netns.call("vmnet-vr1", say)


def numbers(frames: list[bytes]) -> list[int]:
    """Of the client's frames among these."""
    return [int.from_bytes(one[14:18], "big") for one in frames if one.startswith(TO_VM)]


def number(one: int) -> bytes:
    return (TO_VM + one.to_bytes(4, "big")).ljust(60, b"\0")


@isolated()
def test_what_the_namespace_says_does_not_call_the_vm_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = Beside()
    reached: list[int] = []

    def ask() -> None:
        namespace_speaks()
        beside.client.send(number(len(reached)))
        reached.extend(beside.got())

    async def test() -> None:
        async with routers(tmp_path) as made:
            monkeypatch.setattr(bridges, "add_port", then(bridges.add_port, ask))
            await made.vm_runs(VM)
            assert reached == [0], "the port stands in the bridge, the VM is still at its tap"
            ask()
            assert reached == [0, 1], "its port stands in its tap's place"

    asyncio.run(test())


@isolated()
def test_where_it_cannot_take_the_taps_place_the_vm_goes_on_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = Beside()

    async def refuse(device: str, bridge: str) -> None:
        raise OSError(f"{device} stays in {bridge}")

    async def test() -> None:
        async with routers(tmp_path) as made:
            monkeypatch.setattr(bridges, "take_off", refuse)
            with pytest.raises(OSError, match="vnet0 stays in left"):
                await made.vm_runs(VM)
            assert made.of(VM.uuid) is None
            assert netns.names("vmnet-") == []
            beside.client.send(number(7))
            assert beside.got() == [7]

    asyncio.run(test())


@isolated()
def test_a_vm_that_says_nothing_loses_nothing_when_its_port_takes_its_place(tmp_path: Path) -> None:
    beside = Beside()

    async def test() -> None:
        async with routers(tmp_path) as made:
            guest = Guest(beside.tap)
            traffic = Traffic(beside.client.send, 200_000, lambda one: [number(one)])
            await made.vm_runs(VM)
            sent = traffic.stop()
            until(lambda: guest.got[-1] == number(sent - 1), 10, "the last frame")
            guest.stop()
            got = numbers(guest.got)
            odd = [(before, after) for before, after in pairwise(got) if after != before + 1]
            assert (odd, len(got)) == ([], sent), f"{odd[:9]} of {sent}"

    asyncio.run(test())


@isolated()
def test_its_port_is_treated_as_its_tap_was_and_its_tap_again_as_its_port(tmp_path: Path) -> None:
    Beside()
    ip("link", "set", "vnet0", "type", "bridge_slave", "isolated", "on")

    async def test() -> None:
        async with routers(tmp_path) as made:
            await made.vm_runs(VM)
            (port,) = {one.name for one in Path("/sys/class/net/left/brif").iterdir()} - {"up1"}
            place = await bridges.place_of(port, "left")
            assert (port != "vnet0", place.settings) == (True, ("isolated=1",))
            await made.forget(VM.uuid, vm_taps={MAC: "vnet0", MANAGEMENT: "vnet1"})
            place = await bridges.place_of("vnet0", "left")
            assert place.settings == ("isolated=1",)

    asyncio.run(test())


OTHER = replace(VM, uuid="99999999-2222-4333-8444-555555555555")


def routes() -> str:
    argv = ["ip", "-n", "vmnet-vr1", "route", "show", "table", "all"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@isolated()
def test_a_new_vm_of_an_old_ones_name_does_not_get_its_routes(tmp_path: Path) -> None:
    """The old one crashed, is kept for a while, and was deleted."""
    Beside()

    async def test() -> None:
        async with routers(tmp_path) as made:
            await made.vm_runs(VM)
            ip("-n", "vmnet-vr1", "route", "add", "blackhole", "192.0.2.0/24")
            with pytest.raises(RefusedError, match="another VM 'vr1' is a router here"):
                await made.vm_runs(OTHER)
            made.vm_gone(VM.uuid, "crashed")
            await made.vm_runs(OTHER)
            assert made.of(VM.uuid) is None
            assert "192.0.2.0" not in routes()
            await made.forget(OTHER.uuid)

    asyncio.run(test())


@isolated()
def test_nor_does_it_after_the_daemon_was_restarted(tmp_path: Path) -> None:
    Beside()

    async def test() -> None:
        async with routers(tmp_path) as made:
            await made.vm_runs(VM)
            ip("-n", "vmnet-vr1", "route", "add", "blackhole", "192.0.2.0/24")
            assert "192.0.2.0" in routes()
            later = Routers(Config(), cast(Domains, None), made._store)
            await later.vm_runs(OTHER)
            assert "192.0.2.0" not in routes()
            await later.forget(OTHER.uuid)

    asyncio.run(test())


@isolated()
def test_two_events_of_one_vm_at_once_make_one_data_plane(tmp_path: Path) -> None:
    Beside()

    async def test() -> None:
        async with routers(tmp_path) as made:
            await asyncio.gather(*(made.vm_runs(VM) for _ in range(3)))
            assert netns.names("vmnet-") == ["vmnet-vr1"]
            assert "dev eth0" in routes()

    asyncio.run(test())
