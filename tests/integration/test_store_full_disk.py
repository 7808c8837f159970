"""A full disk: writes are refused with the cause, and succeed again once there is room."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio, sys
from pathlib import Path
from vmnet.errors import RefusedError
from vmnet.store import JournalEntry, Store, StoreSettings

async def main(disk, run):
    settings = StoreSettings("a", disk / "state", run, min_free_bytes=50_000)
    async with await Store.open(settings) as store:
        await store.journal_plan("m", [JournalEntry(0, {})])
        await store.space_check()
        filler = disk / "filler"
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        for call in (store.space_check(), store.journal_plan("m", [JournalEntry(1, {"x": "y" * 20000})])):
            try:
                await call
            except RefusedError as refused:
                print(refused)
            else:
                raise SystemExit("not refused")
        assert [entry.seq for entry in await store.journal("m")] == [0]
        filler.unlink()
        await store.journal_plan("m", [JournalEntry(1, {"x": "y" * 20000})])
    async with await Store.open(settings) as store:
        assert [entry.seq for entry in await store.journal("m")] == [0, 1]

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_writes_are_refused_until_there_is_room(tmp_path: Path) -> None:
    disk, run = tmp_path / "disk", tmp_path / "run"
    disk.mkdir()
    shell = 'mount -t tmpfs -o size=400k store "$1" && exec "$0" -c "$3" "$1" "$2"'
    command = ["unshare", "--mount", "sh", "-c", shell, sys.executable, str(disk), str(run), SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    left, refused = done.stdout.splitlines()
    assert "MiB left" in left
    assert "cannot write" in refused
