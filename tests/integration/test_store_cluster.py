"""A RAFT cluster of three, on loopback sockets: its leader is killed and work goes on; two hosts share it."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vmnet.errors import StaleGenerationError, UnavailableError, VmnetError, WaitTimeoutError
from vmnet.store import Binding, JournalEntry, MigrationRecord, Store, StoreSettings, process, schema
from vmnet.store.link import lock_name

QUIET = ("-vconsole:off", "-vsyslog:off")


@dataclass
class Member:
    directory: Path
    number: int
    child: subprocess.Popen[bytes] | None = None

    def path(self, suffix: str) -> Path:
        return self.directory / f"{self.number}.{suffix}"

    @property
    def raft(self) -> str:
        return f"unix:{self.path('raft')}"

    @property
    def remote(self) -> str:
        return f"unix:{self.path('sock')}"

    def create(self, first: "Member") -> None:
        if first is self:
            words: list[str | Path] = ["create-cluster", self.path("db"), schema.PATH, self.raft]
        else:
            words = ["join-cluster", self.path("db"), "vmnet", self.raft, first.raft]
        subprocess.run(["ovsdb-tool", *QUIET, *words], check=True)

    def start(self) -> None:
        self.child = subprocess.Popen(
            [
                *("ovsdb-server", *QUIET, "--no-chdir", f"--log-file={self.path('log')}"),
                *(f"--unixctl={self.path('ctl')}", f"--remote=p{self.remote}", self.path("db")),
            ],
            preexec_fn=process.dies_with(os.getpid()),
        )

    def wait_joined(self) -> None:
        deadline = time.monotonic() + 30
        while not self.path("sock").exists():
            assert time.monotonic() < deadline and self.child is not None and self.child.poll() is None
            time.sleep(0.01)
        command = ["ovsdb-client", *QUIET, "--timeout=30", "wait", self.remote, "vmnet", "connected"]
        subprocess.run(command, check=True)

    def leads(self) -> bool:
        command = ["ovs-appctl", "--timeout=5", "-t", str(self.path("ctl")), "cluster/status", "vmnet"]
        return "Role: leader" in subprocess.run(command, capture_output=True, text=True).stdout

    def kill(self) -> None:
        assert self.child is not None
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Member]]:
    found = [Member(tmp_path, number) for number in range(3)]
    try:
        for member in found:
            member.create(found[0])
            member.start()
            member.wait_joined()
        yield found
    finally:
        for member in found:
            if member.child is not None:
                member.kill()


def settings(members: list[Member], host: str = "a", timeout_s: float = 20.0) -> StoreSettings:
    remotes = tuple(member.remote for member in members)
    return StoreSettings(host, members[0].directory, remotes=remotes, timeout_s=timeout_s)


def test_the_leader_is_killed_and_work_goes_on(members: list[Member]) -> None:
    async def test() -> None:
        async with await Store.open(settings(members)) as store:
            await store.journal_plan("m", [JournalEntry(0, {"do": 0})])
            leader = next(member for member in members if member.leads())
            plans = [
                asyncio.create_task(store.journal_plan("m", [JournalEntry(n, {"n": n})]))
                for n in range(1, 40)
            ]
            await plans[5]
            leader.kill()
            began = time.monotonic()
            await asyncio.gather(*plans)
            assert time.monotonic() - began < 15
            leader.start()
            assert [entry.seq for entry in await store.journal("m")] == list(range(40))
            await store.space_check()

    asyncio.run(test())


def test_without_a_majority_calls_end_in_time(members: list[Member]) -> None:
    async def test() -> None:
        async with await Store.open(settings(members, timeout_s=2.0)) as store:
            for member in members[:2]:
                member.kill()
            began = time.monotonic()
            with pytest.raises(WaitTimeoutError, match=r"0\.sock"):
                await store.journal_plan("m", [JournalEntry(0, {})])
            assert time.monotonic() - began < 4
        with pytest.raises(VmnetError, match=r"no connection to the store"):
            await Store.open(settings(members[:2], timeout_s=0.5))

    asyncio.run(test())


def test_two_hosts_share_bindings_and_keep_their_own_journal(members: list[Member]) -> None:
    async def test() -> None:
        a, b = await Store.open(settings(members, "a")), await Store.open(settings(members, "b"))
        for store, role in ((a, "source"), (b, "destination")):
            record = MigrationRecord("m", "vm", "web", "a", "b", role)  # type: ignore[arg-type]
            await store.migration_put(record)
            await store.journal_plan("m", [JournalEntry(0, {"on": role})])
        assert [entry.action["on"] for entry in await a.journal("m")] == ["source"]
        assert [record.role for record in await b.migrations()] == ["destination"]
        assert [host.name for host in await a.hosts()] == ["a", "b"]
        await a.close()
        await b.close()

    asyncio.run(test())


def test_two_hosts_of_one_name(members: list[Member]) -> None:
    """The second one's recovery would undo what the first one does."""

    async def test() -> None:
        first = await Store.open(settings(members, "host-a.lan"))
        with pytest.raises(
            UnavailableError, match=r"with this host's name; each host needs a name of its own"
        ):
            await Store.open(settings(members, "host-a.lan", timeout_s=2.0))
        await first.journal_plan("m", [JournalEntry(0, {})])
        (host,) = await first.hosts()
        assert host.starts == 1
        await first.close()
        second = await Store.open(settings(members, "host-a.lan"))
        assert [one.seq for one in await second.journal("m")] == [0]
        await second.close()

    asyncio.run(test())


def test_a_lock_that_was_lost_is_waited_for(members: list[Member]) -> None:
    """Somebody with ovsdb-client takes it, and ends."""

    async def test() -> None:
        async with await Store.open(settings(members)) as store:
            leader = next(member for member in members if member.leads())
            words = ["ovsdb-client", *QUIET, "steal", leader.remote, lock_name("a")]
            with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as thief:
                assert thief.stdout is not None and "locked" in thief.stdout.readline()
                plan = asyncio.create_task(store.journal_plan("m", [JournalEntry(0, {})]))
                await asyncio.sleep(0.2)
                assert not plan.done()
                thief.kill()
            await plan

    asyncio.run(test())


def test_of_two_claims_at_once_one_wins(members: list[Member]) -> None:
    async def test() -> None:
        stores = [await Store.open(settings(members, host)) for host in "ab"]
        expected = None
        for _ in range(10):
            claims = [
                store.binding_claim(Binding("vm", "web", store.settings.host), expected) for store in stores
            ]
            won, lost = sorted(
                await asyncio.gather(*claims, return_exceptions=True), key=lambda x: isinstance(x, Exception)
            )
            assert isinstance(won, Binding) and isinstance(lost, StaleGenerationError)
            assert won.generation == (expected or 0) + 1
            expected = won.generation
        for store in stores:
            await store.close()

    asyncio.run(test())


def test_a_claim_just_made_elsewhere_is_known(members: list[Member]) -> None:
    """Told of a generation by its peer, a host may claim the next one, however late its own replica is."""

    async def test() -> None:
        stores = [await Store.open(settings(members, host)) for host in "ab"]
        stored = await stores[0].binding_claim(Binding("vm", "web", "a"), None)
        for turn in range(1, 30):
            stored = await stores[turn % 2].binding_claim(stored, stored.generation)
        assert stored.generation == 30
        for store in stores:
            await store.close()

    asyncio.run(test())
