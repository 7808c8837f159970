"""``python -m vmnet.lab.machines [12] [13]``: build and boot what is missing, print where it is."""

from __future__ import annotations

import sys

from vmnet.lab import accel, image
from vmnet.lab.machines import packages, warm
from vmnet.lab.topology import Machine


def main(arguments: list[str]) -> None:
    chosen = accel.choose(image.ensure("small"))
    for release in packages.SUITES:
        if str(release) in arguments or not arguments:
            kept = warm.ensure(Machine(release), chosen, lambda line: print(line, file=sys.stderr))
            print(release, kept.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
