"""The kernel's answers to our requests are errors one can tell apart."""

import errno
import os

import pytest
from dataplane_kit import Host
from pyroute2.ethtool import Ethtool

from dom0.dataplane import classifier, netdev, tunnel
from dom0.dataplane.classifier import Direction

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize(("local", "remote"), [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")])
def test_a_tunnel_is_made_once_and_removed_twice(local: str, remote: str) -> None:
    with Host():
        index = tunnel.create("vmt1", 7, local, remote, 1400)
        assert netdev.index_of("vmt1") == index and netdev.get_mtu("vmt1") == 1400
        with pytest.raises(FileExistsError):
            tunnel.create("vmt1", 8, local, remote, 1400)
        tunnel.delete("vmt1")
        tunnel.delete("vmt1")
        assert not netdev.exists("vmt1")


@pytest.mark.parametrize(("local", "remote"), [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")])
def test_what_a_tunnel_was_made_with_is_read_back(local: str, remote: str) -> None:
    with Host():
        tunnel.create("vmt1", 7, local, remote, 1400)
        ends = tunnel.ends_of("vmt1")
        assert ends == tunnel.Ends(7, local, remote, 1400) == tunnel.Ends.parse(str(ends))
        with pytest.raises(ValueError, match="lo is no tunnel"):
            tunnel.ends_of("lo")
        with pytest.raises(OSError):
            tunnel.ends_of("vmt2")


@pytest.mark.parametrize("text", ["", "7 192.0.2.1 192.0.2.2", "7 a b 1400", "x 192.0.2.1 192.0.2.2 1400"])
def test_a_journal_that_does_not_say_what_a_tunnel_was_made_with(text: str) -> None:
    with pytest.raises(ValueError):
        tunnel.Ends.parse(text)


def test_what_a_tunnel_brings_is_in_no_queue_of_its_own() -> None:
    with Host(), Ethtool() as ethtool:
        tunnel.create("vmt1", 7, "192.0.2.1", "192.0.2.2", 1400)
        assert not ethtool.get_features("vmt1").features["rx-gro"].enable


def test_a_file_that_is_no_program_is_refused() -> None:
    with Host(), open(os.devnull) as file:  # noqa: PTH123
        tunnel.create("vmt1", 7, "192.0.2.1", "192.0.2.2", 1400)
        with pytest.raises(OSError) as refused:
            classifier.attach("vmt1", Direction.EGRESS, file.fileno(), "nothing")
        assert refused.value.errno == errno.EINVAL
        classifier.detach("vmt1", Direction.EGRESS)
        classifier.make_ready("vmt1")
        classifier.make_ready("vmt1")
