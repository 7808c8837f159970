"""``python -m controller_bridge.rerouters.faucet_file FAUCET.YAML [VLAN]``: vmnet's own file for a Faucet, with nothing in it yet."""

from __future__ import annotations

import sys
from pathlib import Path

from controller_bridge.rerouters import faucet_acls, faucet_config
from vmnet.errors import ExitCode, VmnetError


def empty(config: Path, vlan: str) -> str:
    """ConfigError. The file that is to be made may be included already. ``vlan`` as in the settings; may be empty."""

    def read(path: Path) -> str:
        return path.read_text("utf-8") if path.exists() or path == config else "acls: {}\n"

    fabric = faucet_config.load(config, read)
    return faucet_acls.written((), fabric, fabric.vid(vlan) if vlan else None)


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print("usage: python -m controller_bridge.rerouters.faucet_file FAUCET.YAML [VLAN]", file=sys.stderr)
        return ExitCode.USAGE
    try:
        sys.stdout.write(empty(Path(sys.argv[1]).resolve(), "".join(sys.argv[2:])))
    except VmnetError as error:
        print(error, file=sys.stderr)
        return error.code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
