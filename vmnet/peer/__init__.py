"""Daemons talk to each other: mutual TLS 1.3, length-prefixed JSON, requests both ways on one connection each."""

from vmnet.peer.client import PeerClient
from vmnet.peer.server import PeerServer

__all__ = ["PeerClient", "PeerServer"]
