"""Counts, in the kernel, whom a guest speaks with: :mod:`dom0.dataplane.traffic_program` on its taps. Gone with its sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from dom0.dataplane import bpf_syscall, traffic_program
from dom0.dataplane.traffic_program import KEY_BYTES, MOST_ADDRESSES, OTHER, VALUE_BYTES, Counted

_ETH_P_ALL = 3


class TrafficCounter:
    """Counts from now on what passes ``taps``: device -> the guest's MAC address there. OSError if one is not there.

    Closing waits for the kernel some milliseconds: not on an event loop.
    """

    def __init__(self, taps: Mapping[str, bytes], most: int = MOST_ADDRESSES) -> None:
        self._most = most + 1
        self._map = bpf_syscall.create_hash(KEY_BYTES, VALUE_BYTES, self._most, "vmnet_traffic")
        self._sockets: list[socket.socket] = []
        try:
            bpf_syscall.put(self._map, OTHER, bytes(VALUE_BYTES))
            for device, mac in taps.items():
                self._listen(device, mac)
        except BaseException:
            self.close()
            raise

    def _listen(self, device: str, mac: bytes) -> None:
        program = bpf_syscall.load_socket_filter(traffic_program.code(self._map, mac), "vmnet_traffic")
        try:
            packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._sockets.append(packets)
            bpf_syscall.attach_to_socket(packets, program)
        finally:
            os.close(program)  # the socket keeps it
        packets.bind((device, _ETH_P_ALL))  # only now: nothing comes that has not been through the program

    def read(self) -> list[Counted]:
        """What has been counted so far; the most first. Always one without an address: all that had no room."""
        entries = bpf_syscall.items(self._map, KEY_BYTES, VALUE_BYTES, self._most)
        found = [traffic_program.counted(key, value) for key, value in entries]
        return sorted(found, key=lambda one: -one.bytes)

    def close(self) -> None:
        """Again: nothing."""
        for one in self._sockets:
            one.close()
        self._sockets = []
        if self._map >= 0:
            os.close(self._map)
            self._map = -1
