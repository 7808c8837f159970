"""Records: valid on construction, JSON there and back, cheap to import."""

import json
import subprocess
import sys

import pytest

from vmnet.errors import ConfigError, StaleGenerationError
from vmnet.store import Binding, JournalEntry, MigrationRecord, StoreSettings, generation, rows, schema
from vmnet.store.job import refusal

MIGRATION = MigrationRecord("m", "vm", "web", "a", "b", "source", verdict={"lost": 0}, settings={"x": "y"})
BINDING = Binding("vm", "web", "a", macs=("b", "a"), generation=4)


@pytest.mark.parametrize("value", [MIGRATION, BINDING, JournalEntry(3, {"do": [1, 2]}, None, "done", 1.5)])
def test_json_there_and_back(value: MigrationRecord | Binding | JournalEntry) -> None:
    assert type(value).from_json(json.loads(json.dumps(value.to_json()))) == value


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: MigrationRecord("", "vm", "n", "a", "b", "source"),
        lambda: MigrationRecord("m", "vm", "n", "a", "b", "neither"),  # type: ignore[arg-type]
        lambda: JournalEntry(-1, {}),
        lambda: JournalEntry(1, {}, state="half"),  # type: ignore[arg-type]
        lambda: Binding("", "n", "a"),
        lambda: Binding("vm", "n", "a", generation=-1),
        lambda: Binding("vm", "n", "a", generation=1 << 60),
        lambda: Binding("vm", "\ud800", "a"),
        lambda: Binding("vm", "n", "a", port="p\0"),
        lambda: Binding("vm", "n", "a", segment="s" * 1_000_000),
        lambda: Binding("vm", 5, "a"),  # type: ignore[arg-type]
    ],
)
def test_invalid_records_cannot_be_made(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        wrong()  # type: ignore[operator]


def test_open_means_not_finished() -> None:
    assert MIGRATION.open
    assert not MigrationRecord("m", "vm", "n", "a", "b", "source", finished=1.0).open


def test_columns_are_those_of_the_schema() -> None:
    tables = schema.load()["tables"]
    assert set(rows.migration_columns(MIGRATION)) == set(tables["Migration"]["columns"])
    assert set(rows.binding_columns(BINDING)) | {"claim"} == set(tables["Binding"]["columns"])
    assert set(rows.journal_columns("m", "a", JournalEntry(0, {}))) == set(tables["Journal"]["columns"])


def test_every_table_is_a_root() -> None:
    assert all(table["isRoot"] for table in schema.load()["tables"].values())


def test_a_claim_needs_the_stored_generation() -> None:
    assert generation.claimed(None, BINDING, None).generation == 1
    assert generation.claimed(BINDING, BINDING, 4).generation == 5
    for stored, expected in [(None, 4), (BINDING, None), (BINDING, 3), (BINDING, 5)]:
        with pytest.raises(StaleGenerationError):
            generation.claimed(stored, BINDING, expected)


def test_news_must_be_newer() -> None:
    newer = Binding("vm", "web", "b", generation=5)
    assert generation.learned(BINDING, newer) == newer
    assert generation.learned(BINDING, BINDING) == BINDING
    for old in (Binding("vm", "web", "b", generation=4), Binding("vm", "web", "b", generation=3)):
        with pytest.raises(StaleGenerationError):
            generation.learned(BINDING, old)


def test_release_keeps_the_generation() -> None:
    released = generation.released(BINDING, "vm", 4)
    assert (released.active, released.generation) == (False, 4)
    with pytest.raises(StaleGenerationError):
        generation.released(None, "vm", 4)


@pytest.mark.parametrize(
    ("found", "later"),
    [("1.0.1", True), ("1.0.0", False), ("0.9.9", False), ("1.10.0", True), ("2.0.0", True)],
)
def test_versions_compare_as_numbers(found: str, later: bool) -> None:
    assert schema.newer(found, "1.0.0") is later


@pytest.mark.parametrize("remote", ["10.0.0.1", "ptcp:6640", "tcp:a:1,tcp:b:2", ""])
def test_remotes_are_checked(remote: str) -> None:
    with pytest.raises(ConfigError):
        StoreSettings("a", remotes=(remote,))


def test_tls_remotes_need_files() -> None:
    with pytest.raises(ConfigError, match="ca, certificate and key"):
        StoreSettings("a", remotes=("ssl:10.0.0.1:6640",))


def test_a_full_disk_is_a_refusal() -> None:
    assert refusal('{"error":"I/O error","details":"No space left"}', "unix:x").code == 6
    assert "no json" in refusal("no json", "unix:x").message


def test_importing_the_store_loads_no_ovs() -> None:
    code = (
        "import sys, vmnet.store, vmnet.store.store; print([m for m in sys.modules if m.startswith('ovs')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
