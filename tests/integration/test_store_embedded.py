"""The embedded server with a real ovsdb-server, in a directory of the test's own. No root needed."""

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vmnet.errors import (
    NotFoundError,
    RefusedError,
    StaleGenerationError,
    UnavailableError,
    VmnetError,
)
from vmnet.store import Binding, JournalEntry, MigrationRecord, Store, StoreSettings, schema

MIGRATION = MigrationRecord("m1", "vm1", "web", "a", "b", "source", started=1.25, settings={"max": "300"})
BINDING = Binding("vm1", "web", "a", "br0", "tap0", ("52:54:00:00:00:01",), segment="lan")
STEPS = [JournalEntry(n, {"do": n, "to": ["x", n]}, {"undo": n} if n % 2 else None) for n in range(4)]


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    return StoreSettings("a", tmp_path / "state", tmp_path / "run")


def with_store(settings: StoreSettings, test: Callable[[Store], Awaitable[None]]) -> None:
    async def body() -> None:
        async with await Store.open(settings) as store:
            await test(store)

    asyncio.run(body())


def test_migrations(settings: StoreSettings) -> None:
    async def test(store: Store) -> None:
        await store.migration_put(MIGRATION)
        ours = replace(MIGRATION, host="a")
        assert await store.migration_get("m1") == ours
        assert await store.migrations() == [ours]
        ended = replace(ours, state="done", finished=2.5, verdict={"lost": 0})
        await store.migration_put(ended)
        assert await store.migrations() == []
        assert await store.migrations(open_only=False) == await store.migration_history(5) == [ended]
        with pytest.raises(VmnetError, match="belongs to host z"):
            await store.migration_put(replace(MIGRATION, host="z"))
        await store.journal_plan("m1", STEPS)
        await store.migration_delete("m1")
        await store.migration_delete("m1")
        assert await store.migration_get("m1") is None
        assert await store.journaled() == []

    with_store(settings, test)


def test_history_is_trimmed(settings: StoreSettings) -> None:
    async def test(store: Store) -> None:
        for n in range(5):
            await store.migration_put(replace(MIGRATION, id=f"m{n}", finished=float(n)))
        await store.migration_put(replace(MIGRATION, id="open"))
        await store.history_trim(2)
        assert [record.id for record in await store.migrations(open_only=False)] == ["m3", "m4", "open"]

    with_store(settings, test)


def test_journal(settings: StoreSettings) -> None:
    async def test(store: Store) -> None:
        await store.journal_plan("m1", STEPS[2:])
        await store.journal_plan("m1", STEPS)
        await store.journal_mark("m1", 0, "done")
        await store.journal_mark("m1", [1, 2], "undone")
        found = await store.journal("m1")
        assert [entry.state for entry in found] == ["done", "undone", "undone", "planned"]
        assert all(have.same_step(want) for have, want in zip(found, STEPS, strict=True))
        assert await store.journaled() == ["m1"]
        with pytest.raises(NotFoundError):
            await store.journal_mark("m1", [3, 9], "done")
        with pytest.raises(VmnetError, match="another entry 1"):
            await store.journal_plan("m1", [JournalEntry(1, {"do": "else"}), JournalEntry(7, {})])
        assert [entry.state for entry in await store.journal("m1")][3:] == ["planned"]
        await store.journal_clear("m1")
        assert await store.journal("m1") == []

    with_store(settings, test)


def test_bindings(settings: StoreSettings) -> None:
    async def test(store: Store) -> None:
        first = await store.binding_claim(BINDING, None)
        assert first == replace(BINDING, generation=1) == await store.binding_get("vm1")
        for expected in (None, 0, 2):
            with pytest.raises(StaleGenerationError):
                await store.binding_claim(BINDING, expected)
        await store.binding_learn(replace(BINDING, host="b", generation=7))
        with pytest.raises(StaleGenerationError):
            await store.binding_learn(replace(BINDING, host="c", generation=7))
        assert (await store.binding_claim(BINDING, 7)).generation == 8
        assert not (await store.binding_release("vm1", 8)).active
        assert [binding.generation for binding in await store.bindings()] == [8]
        assert (await store.binding_claim(BINDING, 8)).active

    with_store(settings, test)


def test_all_outlives_the_process(settings: StoreSettings) -> None:
    async def write(store: Store) -> None:
        await store.migration_put(MIGRATION)
        await store.journal_plan("m1", STEPS)
        await store.binding_claim(BINDING, None)

    async def read(store: Store) -> None:
        assert [record.id for record in await store.migrations()] == ["m1"]
        assert len(await store.journal("m1")) == 4
        assert (await store.hosts())[0].starts == 2

    with_store(settings, write)
    with_store(settings, read)


def test_a_value_that_no_column_takes_is_an_error(settings: StoreSettings) -> None:
    async def test(store: Store) -> None:
        with pytest.raises(VmnetError, match=r"Migration\.name does not take"):
            await store.migration_put(replace(MIGRATION, name=None))  # type: ignore[arg-type]
        with pytest.raises(VmnetError, match="expected integer"):
            await store.migration_put(replace(MIGRATION, generation=1 << 70))
        await store.migration_put(MIGRATION)  # and the replica is as good as before

    with_store(settings, test)


def test_operators_read_it_with_ovsdb_client(settings: StoreSettings) -> None:
    async def test(store: Store) -> None:
        await store.migration_put(MIGRATION)
        remote = f"unix:{settings.socket}"
        command = ["ovsdb-client", "--timeout=5", "-f", "json", "dump", remote, "vmnet", "Migration", "name"]
        out = await asyncio.to_thread(subprocess.check_output, command, text=True)
        assert json.loads(out)["data"] == [["web"]]

    with_store(settings, test)


def test_nothing_is_left_behind(settings: StoreSettings) -> None:
    async def test(store: Store) -> None:
        assert settings.socket.stat().st_mode & 0o077 == 0

    with_store(settings, test)
    assert list(settings.run_dir.iterdir()) == []


def test_a_second_process_is_told(settings: StoreSettings) -> None:
    async def test(_store: Store) -> None:
        with pytest.raises(UnavailableError, match="already serves"):
            await Store.open(settings)

    with_store(settings, test)


def test_space_check(settings: StoreSettings) -> None:
    async def test(store: Store) -> None:
        await store.space_check()
        store.settings = replace(settings, min_free_bytes=1 << 60)
        with pytest.raises(RefusedError, match="MiB left"):
            await store.space_check()

    with_store(settings, test)


async def nothing(_store: Store) -> None:
    """Open and close."""


def test_a_damaged_file_is_named(settings: StoreSettings) -> None:
    async def test(store: Store) -> None:
        await store.journal_plan("m1", STEPS)

    with_store(settings, test)
    content = bytearray(settings.database.read_bytes())
    content[len(content) // 2] ^= 1
    settings.database.write_bytes(content)
    with pytest.raises(UnavailableError, match=rf"{settings.database} is damaged at byte \d+") as caught:
        with_store(settings, nothing)
    assert "backup" in caught.value.hint
    assert settings.database.read_bytes() == content


def test_an_unfinished_last_write_is_dropped(settings: StoreSettings) -> None:
    async def first(store: Store) -> None:
        await store.journal_plan("m1", STEPS)

    async def second(store: Store) -> None:
        assert len(await store.journal("m1")) == 4
        await store.journal_mark("m1", 0, "done")

    with_store(settings, first)
    with settings.database.open("ab") as file:
        file.write(b"OVSDB JSON 500 0123456789012345678901234567890123456789\n{")
    with_store(settings, second)
    with_store(settings, nothing)


def test_an_old_schema_is_converted(settings: StoreSettings, tmp_path: Path) -> None:
    old = schema.load()
    old["version"] = "0.9.0"
    del old["tables"]["Migration"]["columns"]["error"]
    make(settings, tmp_path, old)

    async def test(store: Store) -> None:
        await store.migration_put(replace(MIGRATION, error="none"))

    with_store(settings, test)
    assert settings.database.with_name("vmnet.db.0.9.0").exists()


def test_a_newer_schema_is_refused(settings: StoreSettings, tmp_path: Path) -> None:
    make(settings, tmp_path, schema.load() | {"version": "99.0.0"})
    with pytest.raises(UnavailableError, match=r"99\.0\.0, newer"):
        with_store(settings, nothing)


def make(settings: StoreSettings, tmp_path: Path, content: dict[str, object]) -> None:
    path = tmp_path / "other.ovsschema"
    path.write_text(json.dumps(content))
    settings.state_dir.mkdir()
    subprocess.run(["ovsdb-tool", "create", settings.database, path], check=True)


def test_a_big_file_is_compacted_at_start(settings: StoreSettings) -> None:
    async def test(store: Store) -> None:
        for _ in range(30):
            await store.migration_put(replace(MIGRATION, error="x" * 4000))
            await store.migration_put(replace(MIGRATION, error=""))

    with_store(settings, test)
    before = settings.database.stat().st_size
    with_store(replace(settings, compact_bytes=10_000), nothing)
    assert settings.database.stat().st_size < before / 5
