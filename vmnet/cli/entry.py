"""The program ``vmnet``.

``vmnet migrate VM DEST`` in its plain form goes to the daemon before the command-line library is loaded, which takes longer than
the switchover: `virsh` is a C program, and a migration's time is compared with its. Everything else is :mod:`vmnet.cli.main`'s.
"""

from __future__ import annotations

import os
import sys


def plain_migration(words: list[str]) -> tuple[str, str, bool] | None:
    """VM, destination and whether ``--json``, of ``migrate VM DEST [--json]``; None for anything else."""
    if words[:1] != ["migrate"]:
        return None
    names = [word for word in words[1:] if word != "--json"]
    if len(names) != 2 or words.count("--json") > 1 or any(not one or one[0] == "-" for one in names):
        return None
    return names[0], names[1], "--json" in words


def main() -> None:
    """Run; never returns for a plain migration."""
    found = plain_migration(sys.argv[1:])
    if found is None:
        from vmnet.cli.main import main as every_command

        every_command()
    else:
        _leave(_migrate(*found))


def _migrate(vm: str, destination: str, as_json: bool) -> int:
    from vmnet.cli import migration
    from vmnet.control import DEFAULT_SOCKET, SOCKET_VARIABLE
    from vmnet.errors import VmnetError

    socket = os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
    try:
        return migration.run(socket, vm, destination, as_json)
    except VmnetError as error:
        print(f"vmnet: {error}", file=sys.stderr)
        return int(error.code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # nobody reads any more; the migration goes on
        return 1


def _leave(code: int) -> None:
    """Without taking the interpreter apart, which takes milliseconds and frees nothing the kernel does not."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
