"""Emulated OpenFlow 1.3 switches that ask their controller as fast as it answers: ``python -m vmnet.bench.emulated`` (as cbench did).

Each has two stations and keeps ``--window`` questions under way: one station asks by ARP for the other, in a packet-in; the answer is
a packet-out with ARP. Everything else that a controller may want is accepted. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import struct
import time
from typing import Any

from controller_bridge.core import neighbours
from controller_bridge.openflow import bundle
from controller_bridge.openflow.multipart import Part
from controller_bridge.openflow.wire import V13, Framer, Message, Type, message

_PORTS = 2
_READY_S = 15.0
_MOST_LATENCIES = 200_000
_ETHER_TYPE, _ARP = slice(44, 46), b"\x08\x06"
"""In a packet-out with one action: what is none (LLDP) is no answer."""


def stations(number: int) -> list[tuple[bytes, Any]]:
    """MAC and IPv4 address of each, of the switch with that number."""
    return [
        (
            bytes([2, 0, 0, number >> 8, number & 255, port]),
            neighbours.unpack(bytes([10, number >> 8, number & 255, port])),
        )
        for port in range(1, _PORTS + 1)
    ]


def packet_in(port: int, frame: bytes) -> bytes:
    """Its header's xid is 0, as switches send it."""
    match = struct.pack("!HHIIxxxx", 1, 12, 0x80000004, port)
    body = struct.pack("!IHBBQ", 0xFFFFFFFF, len(frame), 1, 0, 0) + match + b"\0\0" + frame
    return message(V13, Type.PACKET_IN, 0, body)


class Emulated:
    """One switch. ``ready`` when the controller has said nothing for a while after having asked for everything."""

    def __init__(self, number: int, address: tuple[str, int]) -> None:
        self.number = number
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = 0
        self.asked_at = 0.0
        self.featured = False
        self._framer = Framer()
        (mac, own), (other_mac, other) = stations(number)
        self.hello = [
            packet_in(1, neighbours.question(own, mac, own)),
            packet_in(2, neighbours.question(other, other_mac, other)),
        ]
        self.question = packet_in(1, neighbours.question(other, mac, own))
        self.socket.sendall(message(V13, Type.HELLO, 1))

    def ask(self, count: int) -> None:
        self.asked_at = time.perf_counter()
        self.socket.sendall(self.question * count)

    def take(self) -> int:
        """Packet-outs that have come. ConnectionError if the controller has gone."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the controller has closed the connection")
        answered = self.answers
        if replies := self.replies_to(data):
            self.socket.sendall(replies)
        return self.answers - answered

    def replies_to(self, data: bytes) -> bytes:
        """``data``: what the controller has sent. Counts the packet-outs in it."""
        replies = []
        for one in self._framer.feed(data):
            if one.type == Type.PACKET_OUT:
                self.answers += one.body[_ETHER_TYPE] == _ARP
            else:
                replies.append(self._reply(one))
        return b"".join(replies)

    def _reply(self, one: Message) -> bytes:
        if one.type == Type.ECHO_REQUEST:
            return message(V13, Type.ECHO_REPLY, one.xid, one.body)
        if one.type == Type.FEATURES_REQUEST:
            self.featured = True
            return message(
                V13, Type.FEATURES_REPLY, one.xid, struct.pack("!QIBBxxII", self.number, 0, 254, 0, 0x4F, 0)
            )
        if one.type == Type.BARRIER_REQUEST:
            return message(V13, Type.BARRIER_REPLY, one.xid)
        if one.type == Type.MULTIPART_REQUEST:
            (part,) = struct.unpack_from("!H", one.body)
            entries = b"".join(map(self._port, range(1, _PORTS + 1))) if part == Part.PORT_DESC else b""
            return message(V13, Type.MULTIPART_REPLY, one.xid, struct.pack("!HHxxxx", part, 0) + entries)
        said = bundle.answer(one)
        if said is not None:
            number, what = said
            return bundle.control(V13, one.xid, number, bundle.Control(what + 1))
        return b""

    def _port(self, number: int) -> bytes:
        mac = bytes([2, 1, 0, self.number >> 8, self.number & 255, number])
        return struct.pack("!Ixxxx6sxx16sII24x", number, mac, f"p{number}".encode(), 0, 4)


class Load:
    def __init__(self, address: tuple[str, int], switches: int, window: int) -> None:
        self._window = window
        self._selector = selectors.DefaultSelector()
        self._switches = [Emulated(number, address) for number in range(1, switches + 1)]
        for one in self._switches:
            self._selector.register(one.socket, selectors.EVENT_READ, one)

    def settle(self, seconds: float) -> None:
        """Until all have been asked for their features, and for ``seconds`` more; then the stations say hello."""
        end = time.monotonic() + _READY_S
        while not all(one.featured for one in self._switches):
            if time.monotonic() > end:
                raise TimeoutError("the controller has not asked for all switches' features")
            self._turn(0.1)
        for part in (1, 2):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self._turn(0.05)
            if part == 1:
                for one in self._switches:
                    one.socket.sendall(b"".join(one.hello))

    def _turn(self, limit_s: float) -> list[tuple[Emulated, int]]:
        return [(key.data, key.data.take()) for key, _ in self._selector.select(limit_s)]

    def run(self, seconds: float) -> dict[str, Any]:
        """Answers, and how long each took if only one question is under way at a time."""
        latencies: list[float] = []
        began = time.perf_counter()
        end = began + seconds
        before = sum(one.answers for one in self._switches)
        for one in self._switches:
            one.ask(self._window)
        while time.perf_counter() < end:
            for one, answered in self._turn(1.0):
                if not answered:
                    continue
                if self._window == 1 and len(latencies) < _MOST_LATENCIES:
                    latencies.append(time.perf_counter() - one.asked_at)
                one.ask(answered)
        took = time.perf_counter() - began
        answers = sum(one.answers for one in self._switches) - before
        return {"answers": answers, "seconds": took, "per_s": answers / took, **_latency(sorted(latencies))}


def _latency(found: list[float]) -> dict[str, float]:
    if not found:
        return {}
    return {
        "latency_p50_us": found[len(found) // 2] * 1e6,
        "latency_p99_us": found[int(len(found) * 0.99)] * 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="vmnet.bench.emulated")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6653)
    parser.add_argument("--switches", type=int, required=True)
    parser.add_argument("--window", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--settle", type=float, default=0.5)
    given = parser.parse_args()
    load = Load((given.address, given.port), given.switches, given.window)
    load.settle(given.settle)
    print(json.dumps(load.run(given.seconds)), flush=True)


if __name__ == "__main__":
    main()
