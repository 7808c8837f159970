"""The program ``vmnet``.

``vmnet migrate VM DEST`` in its plain form goes to the daemon before the command-line library is loaded, which takes longer than
the switchover: `virsh` is a C program, and a migration's time is compared with its. Everything else is :mod:`vmnet.cli.main`'s.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import os
import sys

from vmnet.control_socket import DEFAULT_SOCKET, SOCKET_VARIABLE

_CONNECT_S = 5.0


def plain_migration(words: list[str]) -> tuple[str, str, bool] | None:
    """VM, destination and whether ``--json``, of ``migrate VM DEST [--json]``; None for anything else."""
    if words[:1] != ["migrate"]:
        return None
    names = [word for word in words[1:] if word != "--json"]
    if len(names) != 2 or words.count("--json") > 1 or any(not one or one[0] == "-" for one in names):
        return None
    return names[0], names[1], "--json" in words


def ask(path: str, vm: str, destination: str) -> int | None:
    """Send the request with what is built into Python, so that the daemon works while the rest is loaded; the connection's descriptor.

    None if it cannot be done so: then the ordinary way says what is wrong.
    """
    if not all(one.isascii() and (one.isalnum() or one in "-_.") for one in vm + destination):
        return None  # it would have to be quoted
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.settimeout(_CONNECT_S)
        sock.connect(path)
        sock.sendall(f'{{"op": "migrate", "vm": "{vm}", "destination": "{destination}"}}\n'.encode())
    except OSError:
        sock.close()
        return None
    return int(sock.detach())


def main() -> None:
    """Run; never returns for a plain migration."""
    found = plain_migration(sys.argv[1:])
    if found is None:
        from vmnet.cli.main import main as every_command

        every_command()
    else:
        _leave(_migrate(*found))


def _migrate(vm: str, destination: str, as_json: bool) -> int:
    path = os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGINT})  # Ctrl-C waits until we can abort
    asked = ask(path, vm, destination)

    from vmnet.cli import migration
    from vmnet.errors import VmnetError

    try:
        return migration.run(path, vm, destination, as_json, asked=asked)
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
