"""Debian's FRR, releases 8 to 10: which daemons it has, and how one is started with files of its own.

FRR 8 reads a daemon's configuration from a file of that daemon (``-f``). From FRR 9 on ``mgmtd`` reads the configuration of
``staticd`` and passes it on: ``staticd`` has no ``-f`` any more. FRR 10's ``bfdd`` has no ``--bfdctl``: its control socket is always
below /run/frr. So daemons are told no paths; they get a mount namespace in which FRR's standard folders are private.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PROGRAMS = Path("/usr/lib/frr")
USER = "frr"
MANAGER = "mgmtd"

# $1: the folder that stands for FRR's own; then the daemon. The daemon becomes another user, which makes the kernel forget whose death
# it is to die of: this shell, first process of a PID namespace, remembers.
_PRIVATE = """
set -e
folder=$1; shift
mkdir -p /run/frr
for place in /etc/frr /run/frr /var/lib/frr; do
    [ ! -d $place ] || mount --bind "$folder" $place
done
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
"$@"
exit $?
"""


def installed(daemon: str = "zebra", programs: Path = PROGRAMS) -> bool:
    return (programs / daemon).exists()


def with_manager(daemons: Iterable[str], programs: Path = PROGRAMS) -> tuple[str, ...]:
    """The daemons in the order in which they are started: ``mgmtd``, where FRR has it, comes before those that it configures."""
    return (*((MANAGER,) if installed(MANAGER, programs) else ()), *daemons)


def private_argv(folder: Path, daemon: str, *options: str) -> list[str]:
    """The command line of a daemon whose configuration and sockets are in ``folder``: ``zebra.conf``, ``zebra.vty``, ``zserv.api``.

    ``folder`` must be writable for user ``frr``. The daemon is a descendant of the started process (:func:`innermost`), and ends
    with it.
    """
    guard = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", _PRIVATE, "sh"]
    return [*guard, str(folder), str(PROGRAMS / daemon), "-u", USER, "-g", USER, "-P", "0", *options]


def innermost(pid: int) -> int:
    """The daemon below its guards."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid
