"""Marks of VMs: files that the hook's shell looks for."""

import asyncio
from pathlib import Path

import pytest

from dom0 import marks
from dom0.marks import Marks


def test_they_last_until_they_end_or_are_replaced(tmp_path: Path) -> None:
    async def body() -> None:
        for_ever, short = Marks(tmp_path / "elsewhere", None), Marks(tmp_path / "expected", 0.01)
        for_ever.replace(["one", "two"])
        for_ever.replace(["two", "three"])
        assert {one.name for one in (tmp_path / "elsewhere").iterdir()} == {"two", "three"}
        short.add("one")
        assert "one" in short
        async with asyncio.timeout(5):
            while "one" in short:
                await asyncio.sleep(0.01)
        assert list((tmp_path / "expected").iterdir()) == []
        assert "two" in for_ever

    asyncio.run(body())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "\ud800", "n" * 5000])
def test_a_name_that_cannot_be_a_files_gets_none(tmp_path: Path, name: str) -> None:
    async def body() -> None:
        made = Marks(tmp_path / "m")
        made.add(name)
        assert name not in made

    asyncio.run(body())


def test_there_are_not_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "_MOST", 3)

    async def body() -> None:
        made = Marks(tmp_path / "m", None)
        for name in "abcde":
            made.add(name)
        made.add("a")
        assert [one for one in "abcde" if one in made] == ["a", "b", "c"]

    asyncio.run(body())
