"""On the client, as root: follows docs/install.md on the hosts a and b, block by block, by ssh.

Steps 1 and 2 are in the box (vmnet/lab/machines). On hosts that are installed, the part "Updating" is followed instead, without
what step 2 downloads. PYTHONPATH has tests/machines.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import howto

ROOT = Path(__file__).resolve().parents[1]
HOSTS = {"a": "10.0.0.1", "b": "10.0.0.2"}
IN_THE_BOX = ("1. ", "2. ")
FETCHES = ("git ", "/opt/vmnet/.venv/bin/pip ")
COMMAND_S = 900
# What only asks may be asked again: on emulated processors libvirt's first answer takes longer than doctor waits for it.
ASKED_AGAIN = ("vmnet doctor",)
TRIES = 3


def patiently(host: str, command: str) -> tuple[int, str]:
    code, output = on_host(host, command)
    for _ in range(TRIES - 1 if command in ASKED_AGAIN else 0):
        if not code:
            break
        code, more = on_host(host, command)
        output += f"-- again:\n{more}"
    return code, output


def on_host(host: str, command: str) -> tuple[int, str]:
    return howto.typed(["ssh", "-o", "BatchMode=yes", f"root@{HOSTS[host]}", command], COMMAND_S)


def wanted(page: str, update: bool) -> Iterator[howto.Step]:
    """The blocks to follow. Pure."""
    for step in howto.steps(page, tuple(HOSTS)):
        if update and step.part == "update":
            lines = [line for line in step.commands if not line.startswith(FETCHES)]
            yield replace(step, part="", text="\n".join(lines) + "\n")
        elif not update and not step.part and not step.heading.startswith(IN_THE_BOX):
            yield step


def installed(host: str) -> bool:
    return on_host(host, "systemctl is-enabled --quiet vmnet-dom0d")[0] == 0


def main() -> None:
    page = (ROOT / "docs/install.md").read_text()
    update = all(installed(host) for host in HOSTS)
    try:
        howto.follow(list(wanted(page, update)), patiently)
    except howto.HowToError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
