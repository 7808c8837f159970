"""Put the hook script where libvirt looks for it, say what is there, and take exactly that away again.

libvirt (6.5 and later) runs hooks/DRIVER and then every executable in hooks/DRIVER.d by name; each gets the output of
the one before, and none is skipped because another failed (virHookCall() in src/util/virhook.c). So ours stands beside
whatever is there. libvirt looks whether a driver has any hook only when it starts or reloads.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hooks.libvirtd import looked_s
from vmnet.errors import ConfigError, NotFoundError, RefusedError

DRIVERS = ("qemu", "libxl")
NAME = "50-vmnet"
SOURCE = Path(__file__).with_name("hook.py")
_MARKER = re.compile(r"^# vmnet-hook version=(\S+) dirs=(\d) sha256=([0-9a-f]{64})$", re.MULTILINE)
_UNMARKED = re.compile(r"^# vmnet-hook: .*$", re.MULTILINE)
_SETTING = re.compile(r"^(PYTHON|MARKS|ELSEWHERE|SOCKET|WHEN_DAEMON_AWAY|TIMEOUT_MS) ?= ?(.*)$", re.MULTILINE)
_OF_SHELL = ("PYTHON", "MARKS", "ELSEWHERE")
_HARMLESS = re.compile(r"/[A-Za-z0-9_./+-]+\Z")  # in sh and in Python alike


@dataclass(frozen=True)
class HookChange:
    """What was done about one driver's hook: "installed", "updated", "unchanged", "removed", "absent", "kept"."""

    driver: str
    path: Path
    action: str
    note: str = ""


@dataclass(frozen=True)
class HookStatus:
    """``state``: "installed", "absent", "modified" (changed since) or "foreign" (not ours).

    ``reload_needed``: libvirt has not looked for hooks since this one came. ``others``: further hooks of the driver.
    """

    driver: str
    path: Path
    state: str
    version: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    reload_needed: bool = False
    others: tuple[str, ...] = ()


def install(
    etc_libvirt: Path,
    python: str | None = None,
    drivers: Iterable[str] = DRIVERS,
    socket_path: str = "/run/vmnet/dom0d.sock",
    when_daemon_away: str = "continue",
    timeout_ms: int = 10_000,
    *,
    force: bool = False,
) -> list[HookChange]:
    """Install or update the hook of each driver; a second time changes nothing.

    Raises RefusedError if a file there is not ours or was changed (unless ``force``), NotFoundError without libvirt or
    a Python, ConfigError for a setting that cannot be written into a script or a folder that cannot be written to.
    """
    if not etc_libvirt.is_dir():
        raise NotFoundError(f"{etc_libvirt} does not exist", "install libvirt, or give --etc-libvirt")
    values = _settings(python or find_python(), socket_path, when_daemon_away, timeout_ms)
    found = status(etc_libvirt, drivers)
    for one in found:
        if one.state in ("foreign", "modified") and not force:
            raise RefusedError(f"{one.path} is {one.state}", "look at it; give --force to replace it")
    return [_install_one(one, values) for one in found]


def uninstall(etc_libvirt: Path, drivers: Iterable[str] = DRIVERS) -> list[HookChange]:
    """Remove our hooks, and the folders made for them if they are empty; keeps what is not ours or was changed."""
    found = status(etc_libvirt, drivers)
    return [_uninstall_one(one) for one in reversed(found)][::-1]  # the first made the folder that all lie in


def status(etc_libvirt: Path, drivers: Iterable[str] = DRIVERS) -> list[HookStatus]:
    """What there is for each driver; changes nothing. Raises ConfigError if it cannot be read."""
    try:
        return [_status_one(etc_libvirt / "hooks", driver) for driver in drivers]
    except OSError as error:
        raise ConfigError(
            f"cannot read {error.filename}: {error.strerror}", "run this as root (sudo)"
        ) from None


def find_python() -> str:
    """A Python for the hook: the system's own (it starts quicker, and stays when an environment goes), or ours."""
    for path in ("/usr/bin/python3", getattr(sys, "_base_executable", None), sys.executable):
        if path and os.access(path, os.X_OK):
            return str(path)
    raise NotFoundError("no Python 3 for the hook", "give --python PATH")


def _settings(python: str, socket_path: str, when_daemon_away: str, timeout_ms: int) -> dict[str, str]:
    for path in (python, socket_path):
        if not _HARMLESS.match(path):
            raise ConfigError(
                f"{path!r} cannot be written into a hook", "use an absolute path of plain characters"
            )
    if not os.access(python, os.X_OK):
        raise NotFoundError(f"{python} cannot be run", "give --python PATH")
    if when_daemon_away not in ("continue", "refuse") or not 10 <= timeout_ms <= 60_000:
        raise ConfigError(
            "hooks.when_daemon_away or hooks.timeout_ms is out of range", "see docs/configuration.md"
        )
    return {
        "PYTHON": python,
        # a daemon that dies after it has been told of a VM must still be missed where that is to be a refusal
        "MARKS": str(Path(socket_path).parent) if when_daemon_away == "continue" else "",
        "ELSEWHERE": str(Path(socket_path).parent / "elsewhere"),
        "SOCKET": f'"{socket_path}"',
        "WHEN_DAEMON_AWAY": f'"{when_daemon_away}"',
        "TIMEOUT_MS": str(timeout_ms),
    }


def render(values: dict[str, str], made_dirs: int) -> str:
    """The script with its settings, and a marker by which ``uninstall`` knows it again."""

    def set_one(match: re.Match[str]) -> str:
        joint = "=" if match[1] in _OF_SHELL else " = "
        return f"{match[1]}{joint}{values[match[1]]}"

    text = _SETTING.sub(set_one, SOURCE.read_text(encoding="utf-8"))
    marker = f"# vmnet-hook version={metadata.version('vmnet')} dirs={made_dirs} sha256="
    return _UNMARKED.sub(marker + _digest(_UNMARKED.sub(marker, text)), text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _install_one(was: HookStatus, values: dict[str, str]) -> HookChange:
    folder = was.path.parent
    old = was.path.read_text(encoding="utf-8", errors="replace") if was.state != "absent" else ""
    marker = _MARKER.search(old)
    made = int(marker[2]) if marker else sum(not one.is_dir() for one in (folder, folder.parent))
    text = render(values, made)
    if text == old and os.access(was.path, os.X_OK):
        return HookChange(was.driver, was.path, "unchanged")
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        _write(was.path, text, folder.parent / f".{NAME}.{was.driver}.new")
    except OSError as error:
        raise ConfigError(f"cannot write {was.path}: {error.strerror}", "run this as root (sudo)") from None
    return HookChange(was.driver, was.path, "updated" if old else "installed")


def _write(path: Path, text: str, temporary: Path) -> None:
    """All or nothing; ``temporary`` lies where libvirt does not run what it finds.

    An update keeps the time of the first installation, by which ``status`` knows whether libvirt saw a hook there.
    """
    first = path.stat().st_mtime_ns if path.exists() else None
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o755)
    if first is not None:
        os.utime(temporary, ns=(first, first))
    temporary.replace(path)


def _uninstall_one(was: HookStatus) -> HookChange:
    if was.state == "absent":
        return HookChange(was.driver, was.path, "absent")
    if was.state != "installed":
        return HookChange(was.driver, was.path, "kept", f"it is {was.state}: remove it by hand")
    marker = _MARKER.search(was.path.read_text(encoding="utf-8"))
    try:
        was.path.unlink()
    except OSError as error:
        raise ConfigError(f"cannot remove {was.path}: {error.strerror}", "run this as root (sudo)") from None
    for folder in (was.path.parent, was.path.parent.parent)[: int(marker[2]) if marker else 0]:
        if any(folder.iterdir()):
            break
        folder.rmdir()
    return HookChange(was.driver, was.path, "removed")


def _status_one(hooks: Path, driver: str) -> HookStatus:
    path = hooks / f"{driver}.d" / NAME
    others = tuple(str(one) for one in _others(hooks, driver))
    if not path.exists():
        return HookStatus(driver, path, "absent", others=others)
    text = path.read_text(encoding="utf-8", errors="replace")
    marker = _MARKER.search(text)
    if marker is None:
        return HookStatus(driver, path, "foreign", others=others)
    intact = _digest(text.replace(marker[3], "", 1)) == marker[3] and os.access(path, os.X_OK)
    settings = tuple((match[1].lower(), match[2].strip('"')) for match in _SETTING.finditer(text))
    first = min(Path(one).stat().st_mtime for one in (*others, str(path)))
    looked = looked_s(driver)
    late = looked is not None and first > looked
    return HookStatus(driver, path, "installed" if intact else "modified", marker[1], settings, late, others)


def _others(hooks: Path, driver: str) -> list[Path]:
    folder = hooks / f"{driver}.d"
    found = [hooks / driver, *(sorted(folder.iterdir()) if folder.is_dir() else [])]
    return [one for one in found if one.name != NAME and one.is_file() and os.access(one, os.X_OK)]
