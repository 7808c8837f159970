"""python -m dom0.reach.libvirt_child URI: the versions of libvirt and of its hypervisor there, or libvirt's error."""

from __future__ import annotations

import sys


def main() -> None:
    import libvirt

    from vmnet.hypervisor.versions import version

    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.open(sys.argv[1])
        print(f"libvirt {version(connection.getLibVersion())}, hypervisor {version(connection.getVersion())}")
    except libvirt.libvirtError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
