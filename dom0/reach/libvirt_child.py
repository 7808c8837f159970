"""python -m dom0.reach.libvirt_child URI: the version of libvirt there, or libvirt's error.

Not the hypervisor's version: the first such question makes libvirtd start each of its emulators, which may take minutes.
"""

from __future__ import annotations

import sys


def main() -> None:
    import libvirt

    from vmnet.hypervisor.versions import version

    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.open(sys.argv[1])
        print(f"libvirt {version(connection.getLibVersion())}")
    except libvirt.libvirtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
