"""When the scenarios of virtual routers can run."""

from __future__ import annotations

import os
import shutil

import pytest

MARKS = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("libvirtd") or not shutil.which("vtysh"),
        reason="needs root, libvirtd and FRR",
    ),
]
