"""What a VM's end does to its data plane while a migration of it is still being taken apart."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from world import VM, Host, World

from vmnet.hypervisor.events import Happening


class Closing:
    """A migration that has its verdict, and cleans up."""

    final = True

    def __init__(self) -> None:
        self.record = SimpleNamespace(vm=VM)
        self.clean = asyncio.Event()

    async def finished(self) -> None:
        await self.clean.wait()


class DataPlane:
    def __init__(self) -> None:
        self.spec = SimpleNamespace(keep_s=0)
        self.removed = asyncio.Event()

    async def remove(self, _taps: object) -> None:
        self.removed.set()


def scene(plane: DataPlane) -> tuple[Host, Closing]:
    """A host whose VM has this data plane, and a migration of it that is still open."""
    host, closing = World(1, 0).hosts["a"], Closing()
    host.desk.migrations["earlier"] = closing  # type: ignore[assignment]
    routers: Any = host.context.routers
    routers._routers[VM] = plane
    return host, closing


@pytest.mark.parametrize("detail", ["migrated", "shutdown", "crashed"])
def test_the_data_plane_goes_after_what_hangs_on_it(detail: str) -> None:
    async def body() -> None:
        plane = DataPlane()
        host, closing = scene(plane)
        host.hear(Happening.STOPPED, 0, detail)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not plane.removed.is_set()
        closing.clean.set()
        await asyncio.wait_for(plane.removed.wait(), 5)

    asyncio.run(body())


def test_one_that_was_made_meanwhile_stays() -> None:
    async def body() -> None:
        first, second = DataPlane(), DataPlane()
        host, closing = scene(first)
        host.hear(Happening.STOPPED, 0, "migrated")
        await asyncio.sleep(0)
        routers: Any = host.context.routers
        routers._routers[VM] = second
        closing.clean.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert not second.removed.is_set() and routers.of(VM) is second

    asyncio.run(body())
