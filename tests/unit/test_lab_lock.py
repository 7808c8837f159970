"""A program that outlives a killed command goes on holding the lock of the lab on which it works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vmnet.errors import LabError
from vmnet.lab.state import locked

COMMAND = """
import sys
from pathlib import Path
from vmnet.lab.command import run
from vmnet.lab.state import locked

file, inherits = Path(sys.argv[1]), sys.argv[2] == "inherits"
with locked(file, "lab 'x'") as lock:
    print("locked", flush=True)
    run(["sh", "-c", "echo runs >&2; read line < $0", str(file.with_suffix(".fifo"))], inherits=[lock] if inherits else [])
"""


@pytest.mark.parametrize("how", ["inherits", "does not"])
def test_the_lock_is_free_when_nobody_works_on_the_lab(tmp_path: Path, how: str) -> None:
    file, fifo = tmp_path / "lock", tmp_path / "lock.fifo"
    subprocess.run(["mkfifo", str(fifo)], check=True)
    argv = [sys.executable, "-c", COMMAND, str(file), how]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout
        assert command.stdout.readline() == "locked\n"
        with fifo.open("w") as writer:  # opens when the program that outlives the command reads
            command.kill()
            command.wait()
            if how == "inherits":
                with pytest.raises(LabError, match="busy"), locked(file, "lab 'x'", 0.1):
                    pass
            else:
                with locked(file, "lab 'x'", 0.1):
                    pass
            writer.write("\n")
    with locked(file, "lab 'x'", 20) as lock:
        assert lock > 2
