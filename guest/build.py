#!/usr/bin/env python3
"""Build the guest images: ``python guest/build.py [small|router]… [--refresh]``."""

import sys

from vmnet.lab.image import main

if __name__ == "__main__":
    main(sys.argv[1:])
