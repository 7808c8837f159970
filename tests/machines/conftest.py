"""`make test` runs the smoke alone; `make test-machines` sets VMNET_TEST_MACHINES and runs everything here."""

import os
import shutil

import pytest

from vmnet.bench.stage import stage
from vmnet.lab.machines import build, image

collect_ignore_glob = [] if os.environ.get("VMNET_TEST_MACHINES") else ["test_[!s]*.py"]


def why_not(release):
    """Why machines of that release cannot run here; empty when they can."""
    missing = [p for p in (*build.PROGRAMS, "qemu-system-x86_64") if shutil.which(p) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (scripts/setup.sh machines)"
    if os.geteuid() != 0:
        return "machines need root"
    if image.find(release) is None:
        return f"no image of a Debian {release} machine (scripts/setup.sh machines)"
    return ""


@pytest.fixture(scope="session")
def debian12_once():
    if reason := why_not(12):
        pytest.skip(reason)


@pytest.fixture(scope="module")
def ready(request, debian12_once):
    """The stage of a file's SCHEME: its lab is up for that file alone, for machines need the processors for themselves."""
    with stage("machines", [request.module.SCHEME], keep=False) as made:
        yield made


@pytest.fixture
def debian12():
    if reason := why_not(12):
        pytest.skip(reason)


@pytest.fixture
def debian13():
    if reason := why_not(13):
        pytest.skip(reason)
