"""Hosts as network namespaces on one machine, with real libvirtd and QEMU. See docs/lab.md."""

from vmnet.lab.host import Host
from vmnet.lab.lab import Lab
from vmnet.lab.node import Node
from vmnet.lab.up import Options, lab_up, up

__all__ = ["Host", "Lab", "Node", "Options", "lab_up", "up"]
