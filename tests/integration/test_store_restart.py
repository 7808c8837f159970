"""Servers and daemons that are killed: the server comes back, the client reconnects, nothing acknowledged is lost."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vmnet.errors import UnavailableError, VmnetError, WaitTimeoutError
from vmnet.store import Binding, JournalEntry, Store, StoreSettings, process, schema
from vmnet.store.launch import wait_ready

ENTRY = [JournalEntry(0, {"do": 0})]
OWNER = """
import asyncio, sys
from pathlib import Path
from vmnet.store import JournalEntry, Store, StoreSettings

async def main():
    store = await Store.open(StoreSettings("a", Path(sys.argv[1]), Path(sys.argv[2])))
    await store.journal_plan("m", [JournalEntry(0, {"do": 0})])
    print(store.server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    return StoreSettings("a", tmp_path / "state", tmp_path / "run")


def kill(store: Store) -> int:
    assert store.server is not None and store.server.pid is not None
    os.kill(store.server.pid, signal.SIGKILL)
    return store.server.pid


def wait_end(pid: int, start: int, limit_s: float = 5.0) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    same = process.identity(pid) == process.Identity(pid, start)
    ended = not same or poller.poll(limit_s * 1000)
    os.close(fd)
    assert ended


def test_a_killed_server_comes_back(settings: StoreSettings) -> None:
    async def test() -> None:
        async with await Store.open(settings) as store:
            for n in range(4):
                old = kill(store)
                await store.journal_plan(f"m{n}", ENTRY)
                assert store.server is not None and store.server.pid != old
            assert await store.journaled() == ["m0", "m1", "m2", "m3"]

    asyncio.run(test())


def test_killed_in_the_middle_of_transactions(settings: StoreSettings) -> None:
    """200 plans in flight while the server is killed: each is acknowledged once, and is there, once."""
    count = 200

    async def test() -> None:
        async with await Store.open(settings) as store:
            plans = [
                asyncio.create_task(store.journal_plan("m", [JournalEntry(n, {"n": n})]))
                for n in range(count)
            ]
            for at in (20, 120):
                await plans[at]
                kill(store)
            await asyncio.gather(*plans)
            assert [entry.seq for entry in await store.journal("m")] == list(range(count))

    asyncio.run(test())


def test_claims_are_neither_lost_nor_doubled(settings: StoreSettings) -> None:
    async def test() -> None:
        async with await Store.open(settings) as store:
            stored = await store.binding_claim(Binding("vm", "web", "a"), None)
            for _ in range(3):
                claim = asyncio.create_task(store.binding_claim(stored, stored.generation))
                await asyncio.sleep(0)  # queued, perhaps sent
                kill(store)
                stored = await claim
            assert stored.generation == 4

    asyncio.run(test())


def test_a_server_that_hangs_costs_no_more_than_the_deadline(settings: StoreSettings) -> None:
    async def test() -> None:
        async with await Store.open(replace(settings, timeout_s=0.5)) as store:
            assert store.server is not None and store.server.pid is not None
            os.kill(store.server.pid, signal.SIGSTOP)
            with pytest.raises(WaitTimeoutError, match=r"vmnetdb\.sock did not confirm"):
                await store.journal_plan("m", ENTRY)
            with pytest.raises(WaitTimeoutError):
                await store.journal_plan("m", ENTRY)
            os.kill(store.server.pid, signal.SIGCONT)
            await store.journal_plan("m", ENTRY)
            assert len(await store.journal("m")) == 1

    asyncio.run(test())


def test_a_server_that_cannot_come_back_is_reported(settings: StoreSettings) -> None:
    async def test() -> None:
        async with await Store.open(replace(settings, timeout_s=2.0)) as store:
            settings.database.write_bytes(b"nothing of the sort\n" * 10)
            kill(store)
            with pytest.raises(VmnetError):
                await store.journal_plan("m", ENTRY)
            with pytest.raises(UnavailableError, match="is damaged"):
                await store.journal_plan("m", ENTRY)
            settings.database.unlink()  # as the message says
            async with asyncio.timeout(10):
                while store.server is None or store.server.failure:
                    await asyncio.sleep(0.02)
            await store.journal_plan("m", ENTRY)

    asyncio.run(test())


@pytest.fixture
def owner(settings: StoreSettings) -> Iterator[subprocess.Popen[str]]:
    """A process that has the store open."""
    command = [sys.executable, "-c", OWNER, str(settings.state_dir), str(settings.run_dir)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield child
    child.kill()
    child.wait()


def test_the_server_dies_with_its_owner(settings: StoreSettings, owner: subprocess.Popen[str]) -> None:
    assert owner.stdout is not None
    who = process.identity(int(owner.stdout.readline()))
    assert who is not None
    owner.kill()
    wait_end(*who)

    async def test() -> None:
        async with await Store.open(settings) as store:
            assert len(await store.journal("m")) == 1

    asyncio.run(test())


def serve(settings: StoreSettings) -> "subprocess.Popen[bytes]":
    """An ovsdb-server on the store's database that no Store has started."""
    child = subprocess.Popen(
        [
            *("ovsdb-server", "-vconsole:off", "-vsyslog:off", "--no-chdir", f"--unixctl={settings.control}"),
            *(f"--remote=punix:{settings.socket}", settings.database),
        ],
        preexec_fn=process.dies_with(os.getpid()),
    )
    wait_ready(child, settings)
    return child


def test_a_server_left_over_is_replaced(settings: StoreSettings) -> None:
    """As if our owner had been killed before the server was told to die with it."""
    asyncio.run(open_and_close(settings))
    left = serve(settings)
    process.write_identity(settings.pidfile, left.pid)
    asyncio.run(open_and_close(settings))
    assert left.wait(5) == -signal.SIGTERM


def test_a_left_over_server_that_hangs_is_replaced(settings: StoreSettings) -> None:
    asyncio.run(open_and_close(settings))
    left = serve(settings)
    process.write_identity(settings.pidfile, left.pid)
    left.send_signal(signal.SIGSTOP)
    asyncio.run(open_and_close(settings))
    assert left.wait(5) == -signal.SIGKILL


def test_somebody_elses_process_is_left_alone(settings: StoreSettings) -> None:
    """The pid in a stale pidfile belongs to another process by now."""
    settings.run_dir.mkdir(parents=True)
    other = subprocess.Popen(["sleep", "60"])
    try:
        settings.pidfile.write_text(f"{other.pid} 1\n")
        asyncio.run(open_and_close(settings))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_database_open_elsewhere_is_reported(settings: StoreSettings, tmp_path: Path) -> None:
    asyncio.run(open_and_close(settings))
    other = serve(settings)
    try:
        with pytest.raises(UnavailableError, match="lock"):
            asyncio.run(open_and_close(replace(settings, run_dir=tmp_path / "run2")))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_remote_with_an_older_schema_is_explained(settings: StoreSettings, tmp_path: Path) -> None:
    old = schema.load() | {"version": "0.9.0"}
    del old["tables"]["Journal"]["columns"]["inverse"]
    (tmp_path / "old.ovsschema").write_text(json.dumps(old))
    settings.state_dir.mkdir()
    settings.run_dir.mkdir()
    subprocess.run(["ovsdb-tool", "create", settings.database, tmp_path / "old.ovsschema"], check=True)
    other = serve(settings)
    remote = replace(settings, remotes=(f"unix:{settings.socket}",), timeout_s=1.0)
    try:
        with pytest.raises(VmnetError) as caught:
            asyncio.run(open_and_close(remote))
        assert "its schema is 0.9.0, ours 1.0.0: upgrade it" in caught.value.hint
    finally:
        other.kill()
        other.wait()


async def open_and_close(settings: StoreSettings) -> None:
    await (await Store.open(settings)).close()
