"""On a machine: this copy of the repository becomes what is installed, as step 2 of docs/install.md would do it.

The box has all that the step downloads and compiles. PYTHONPATH is this copy: what the box has of vmnet is older.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from vmnet.lab.machines import howto, tree


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "vmnet.tar"
        tree.pack(archive)
        with archive.open("rb") as content:
            subprocess.run(["sh", "-c", howto.VMNET], stdin=content, check=True)


if __name__ == "__main__":
    main()
