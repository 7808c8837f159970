"""The embedded server's database file: made, checked, converted to our schema and compacted, before the
server opens it."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

from vmnet.errors import UnavailableError
from vmnet.store import dblog, schema
from vmnet.store.settings import StoreSettings

LOG = logging.getLogger(__name__)
TOOL_TIMEOUT_S = 60.0
INSTALL_HINT = "install Open vSwitch's database server (Debian: openvswitch-common and openvswitch-switch)"


def prepare(settings: StoreSettings) -> None:
    """Make the file ready to serve. No server may have it open.

    Raises UnavailableError (which file, and what to do) when it is damaged, comes from a newer vmnet, or
    cannot be made.
    """
    database = settings.database
    if not database.exists() or database.stat().st_size == 0:
        _create(database)
        return
    check(database)
    _convert(database)
    if database.stat().st_size > settings.compact_bytes:
        _tool("compact", database)


def check(database: Path) -> None:
    """Raise UnavailableError when the file is damaged. ovsdb-server would drop all that follows the damage,
    silently."""
    try:
        found = dblog.scan(database.read_bytes())
    except OSError as failure:
        raise UnavailableError(
            f"cannot read {database}: {failure.strerror}", "correct its permissions"
        ) from failure
    if found.damaged:
        raise UnavailableError(
            f"database file {database} is damaged at byte {found.good} of {found.size}",
            "restore it from a backup, or move it away to start with an empty one; "
            "then start the daemon again: the journal in it is lost",
        )
    if found.torn:
        LOG.warning("%s ends in an unfinished write, which was never acknowledged; it is dropped", database)


def _create(database: Path) -> None:
    """Made beside its place and renamed into it, so that a crash leaves no half-made file."""
    draft = database.with_suffix(".new")
    draft.unlink(missing_ok=True)
    _tool("create", draft, schema.PATH)
    draft.replace(database)
    draft.with_name(f".{draft.name}.~lock~").unlink(missing_ok=True)


def _convert(database: Path) -> None:
    if _tool("needs-conversion", database, schema.PATH) == "no":
        return
    found, ours = _tool("db-version", database), schema.version()
    if schema.newer(found, ours):
        raise UnavailableError(
            f"database file {database} has schema {found}, newer than this vmnet's {ours}",
            "install the newer vmnet again",
        )
    backup = database.with_name(f"{database.name}.{found}")
    shutil.copy2(database, backup)
    LOG.info("converting %s from schema %s to %s; the old file is kept as %s", database, found, ours, backup)
    _tool("convert", database, schema.PATH)


def _tool(command: str, *paths: Path) -> str:
    """``ovsdb-tool COMMAND PATH...``: its output, or UnavailableError with its own words."""
    try:
        done = subprocess.run(
            ["ovsdb-tool", "-vsyslog:off", command, *map(str, paths)],
            capture_output=True,
            text=True,
            timeout=TOOL_TIMEOUT_S,
            umask=0o077,
            check=False,
        )
    except FileNotFoundError:
        raise UnavailableError("ovsdb-tool is not installed", INSTALL_HINT) from None
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"ovsdb-tool {command} {paths[0]} takes over {TOOL_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise UnavailableError(
            f"ovsdb-tool {command} {paths[0]}: {words[-1] if words else f'exit {done.returncode}'}",
            "see that the file is an OVSDB database, is not open elsewhere, and that the disk has room",
        )
    return done.stdout.strip()
