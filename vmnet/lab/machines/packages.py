"""What a machine's image consists of. Pure."""

from __future__ import annotations

from typing import Literal

Release = Literal[12, 13]
SUITES: dict[Release, str] = {12: "bookworm", 13: "trixie"}

_BOOT = "linux-image-amd64 initramfs-tools zstd systemd-sysv dbus udev libpam-systemd kmod grub-pc-bin"
_DEBIAN = (
    "apparmor openssh-server sudo ca-certificates ifupdown iproute2 iputils-ping procps less "
    "tcpdump ethtool bridge-utils netcat-openbsd rsync network-manager"
)
INSTALL = (
    "libvirt-daemon-system libvirt-clients qemu-system-x86 openvswitch-switch "
    "nftables git gcc libc6-dev pkg-config python3-venv python3-dev libvirt-dev"
)
"""docs/install.md, step 1."""

# Driver families that no machine with virtio devices loads: half of the image.
_UNUSED_DRIVERS = (
    "gpu media infiniband scsi/[a-rt-u]* usb staging iio hwmon message mfd input bluetooth isdn mmc mtd nvme hid edac target "
    "comedi video leds thunderbolt firewire w1 ata net/wireless net/ethernet net/can net/ieee802154"
)
_UNUSED_FILES = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/lib/modules/*/kernel/sound/*",
    "/lib/modules/*/kernel/net/wireless/*",
)


def names() -> list[str]:
    return f"{_BOOT} {_DEBIAN} {INSTALL}".split()


def unused() -> list[str]:
    """Patterns of files that are not installed. Both places of modules: a merged /usr is how the package names it or not."""
    drivers = [f"/lib/modules/*/kernel/drivers/{family}/*" for family in _UNUSED_DRIVERS.split()]
    modules = [path for path in (*_UNUSED_FILES, *drivers) if path.startswith("/lib/")]
    return [*_UNUSED_FILES, *drivers, *(f"/usr{path}" for path in modules)]


def mmdebstrap(release: Release, root: str, hooks: list[str], sources: list[str]) -> list[str]:
    """The command line that makes the tree ``root``. ``hooks``: shell commands, ``$1`` is the tree."""
    initramfs = (
        'mkdir -p "$1/etc/initramfs-tools/conf.d"; '
        'printf "MODULES=list\\nCOMPRESS=zstd\\n" > "$1/etc/initramfs-tools/conf.d/machine"; '
        'printf "virtio_pci\\nvirtio_blk\\next4\\n" > "$1/etc/initramfs-tools/modules"'
    )
    return [
        "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--components=main",
        '--aptopt=Apt::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in unused()),
        f"--essential-hook={initramfs}",
        *(f"--customize-hook={hook}" for hook in hooks),
        f"--include={','.join(names())}",
        SUITES[release], root, *sources,
    ]  # fmt: skip
