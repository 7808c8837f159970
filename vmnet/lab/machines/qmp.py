"""QEMU's machine protocol, as much as a lab needs of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from vmnet.errors import LabError
from vmnet.lab.wait import wait_for

_ANSWER_S = 120.0


class Qmp:
    """One connection: commands and their answers; events are passed over."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when nobody listens there."""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(_ANSWER_S)
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("r")
            self._lines.readline()  # the greeting
            self.ask("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """What the command returns. Raises LabError when QEMU refuses it, OSError when QEMU has gone."""
        request = {"execute": command, **({"arguments": dict(arguments)} if arguments else {})}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        for line in self._lines:
            answer = json.loads(line)
            if "error" in answer:
                raise LabError(f"QEMU refuses {command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]
        raise ConnectionResetError(f"QEMU closed the connection during {command}")

    def save(self, file: Path, seconds: float) -> None:
        """Stop the machine and write its state. Raises LabError when it cannot."""
        self.ask("stop")
        self.ask("migrate-set-parameters", {"max-bandwidth": 1 << 40})
        self.ask("migrate", {"uri": f"exec:cat > '{file}'"})
        wait_for("the machine's state to be written", self._saved, seconds, 0.1)

    def _saved(self) -> bool:
        status = self.ask("query-migrate").get("status")
        if status in ("failed", "cancelled"):
            raise LabError(f"QEMU cannot write the machine's state: {status}")
        return bool(status == "completed")
