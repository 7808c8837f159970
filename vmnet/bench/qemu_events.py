"""QEMU's own events of one host as JSON lines, with QEMU's microseconds: ``python -m vmnet.bench.qemu_events URI``.

A process of its own, since libvirt's event loop is one for a process. First line: ``{"ready": true}``. Each line of its standard
input is answered by the time (``clock``); it ends with the input. SUSPENDED as libvirt reports it comes 5-10 ms after the guest
stopped; QEMU's STOP carries the moment itself.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any


def line(domain: str, event: str, seconds: int, micros: int, details: str | None) -> str:
    try:
        data = json.loads(details) if details else None
    except ValueError:
        data = details
    return json.dumps({"vm": domain, "event": event, "t": seconds + micros / 1e6, "data": data})


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(uri: str) -> None:
    import libvirt
    import libvirt_qemu

    def on_event(
        _conn: Any, dom: Any, event: str, seconds: int, micros: int, details: str | None, _opaque: Any
    ) -> None:
        _say(line(dom.name(), event, seconds, micros, details))

    libvirt.virEventRegisterDefaultImpl()
    connection = libvirt.open(uri)
    connection.setKeepAlive(5, 3)
    libvirt_qemu.qemuMonitorEventRegister(connection, None, None, on_event, None)
    _say(json.dumps({"ready": True}))
    threading.Thread(target=_loop, args=(libvirt,), daemon=True).start()
    for _question in sys.stdin:
        _say(json.dumps({"clock": time.time()}))


def _loop(libvirt: Any) -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


if __name__ == "__main__":
    main(sys.argv[1])
