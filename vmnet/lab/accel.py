"""KVM or TCG. KVM only after it really booted the guest: a device may be there and hang (nested virtualisation)."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from typing import Literal, cast

from vmnet.errors import ConfigError
from vmnet.lab.image import MARKER, Image
from vmnet.lab.paths import cache_dir
from vmnet.lab.state import boot_id

Accel = Literal["kvm", "tcg"]
PROBE_SECONDS = 8.0


def choose(image: Image) -> Accel:
    """``VMNET_ACCEL`` if set, else this boot's verdict, else the verdict of a probe.

    Raises ConfigError when ``VMNET_ACCEL`` is neither kvm nor tcg.
    """
    wish = os.environ.get("VMNET_ACCEL")
    if wish:
        if wish not in ("kvm", "tcg"):
            raise ConfigError(f"VMNET_ACCEL must be kvm or tcg, is '{wish}'")
        return cast(Accel, wish)
    verdict = cache_dir() / f"accel-{boot_id()}"
    if not verdict.exists():
        for old in cache_dir().glob("accel-*"):
            old.unlink(missing_ok=True)
        verdict.write_text("kvm" if _kvm_boots(image) else "tcg")
    return "kvm" if verdict.read_text() == "kvm" else "tcg"


def _kvm_boots(image: Image) -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    argv = [
        "qemu-system-x86_64", "-machine", "q35", "-accel", "kvm", "-m", "128", "-nodefaults", "-display", "none",
        "-serial", "stdio", "-no-reboot", "-kernel", str(image.kernel), "-initrd", str(image.initrd),
        "-append", "console=ttyS0 quiet",
    ]  # fmt: skip
    null = subprocess.DEVNULL
    with subprocess.Popen(argv, stdin=null, stderr=null, stdout=subprocess.PIPE) as qemu:
        try:
            return _says_marker(qemu, time.monotonic() + PROBE_SECONDS)
        finally:
            qemu.kill()


def _says_marker(qemu: subprocess.Popen[bytes], deadline: float) -> bool:
    assert qemu.stdout is not None
    seen = b""
    with selectors.DefaultSelector() as selector:
        selector.register(qemu.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                continue
            data = os.read(qemu.stdout.fileno(), 4096)
            if not data:
                return False
            seen = (seen + data)[-8192:]
            if MARKER.encode() in seen:
                return True
    return False
