"""What one hook call costs libvirt, as a whole process."""

import asyncio
import statistics
import subprocess
import threading
import time
from pathlib import Path

from dom0.control_server import ControlServer, HookAnswer, HookCall
from hooks import install as installer

XML = b"<domain><name>vm</name>" + b"<device a='b'>c</device>\n" * 300 + b"</domain>"
CALLS = 40


def median_ms(argv: list[str]) -> float:
    def once() -> float:
        began = time.perf_counter()
        subprocess.run(argv, input=XML, stdout=subprocess.PIPE, check=True, timeout=10)
        return (time.perf_counter() - began) * 1000

    return statistics.median(once() for _ in range(CALLS))


def test_a_call_costs_little_more_than_a_bare_python(tmp_path: Path) -> None:
    async def on_hook(call: HookCall) -> HookAnswer:
        return HookAnswer(xml=call.xml)

    async def on_request(_: object, __: object) -> dict[str, object]:
        return {}

    (tmp_path / "etc").mkdir()
    socket = tmp_path / "d.sock"
    installer.install(tmp_path / "etc", socket_path=str(socket))
    loop, ready = asyncio.new_event_loop(), threading.Event()
    server = ControlServer(socket, on_hook, on_request)

    def serve() -> None:
        loop.run_until_complete(server.start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(server.stop())

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(10)
    try:
        bare = median_ms([installer.find_python(), "-IS", "-c", "pass"])
        nothing = median_ms(["/bin/true"])
        hook = median_ms([str(tmp_path / "etc/hooks/qemu.d/50-vmnet"), "vm", "migrate", "begin", "-"])
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
    print(f"\nhook {hook:.1f} ms, bare Python {bare:.1f} ms, /bin/true {nothing:.1f} ms")
    assert hook < max(15.0, 2.5 * bare)  # 15 ms, or what a busy machine makes of it
