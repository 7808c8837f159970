"""BFD control packets (RFC 5880, 5881, 5883) in asynchronous mode: those that can be sent again for a VM that stands still. Pure.

Only packets in state Up are repeated. In Init or Down intervals are a second or more (RFC 5880, 6.8.3), which outlasts a switchover;
and an Init repeated would bring the neighbour Up (6.8.6) towards a router that forwards nothing at that moment.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dom0.router.packet import UDP_BYTES, Packet, read, udp_is_sound, udp_ports, with_udp_payload
from dom0.router.session import Heard, Keepalive, Key, Unanswerable, Why

SINGLE_HOP_PORT, MULTIHOP_PORT = 3784, 4784
_CONTROL = struct.Struct("!BBBBIIIII")
_UP = 3
AUTHENTICATION = 0x04
_POLL, _FINAL, _DEMAND, _MULTIPOINT = 0x20, 0x10, 0x02, 0x01
_US_A_SECOND = 1_000_000


@dataclass(frozen=True)
class Control:
    """A control packet's fields (RFC 5880, section 4.1); intervals in µs."""

    first: int
    flags: int
    multiplier: int
    length: int
    mine: int
    yours: int
    desired_tx_us: int
    required_rx_us: int
    required_echo_us: int

    @property
    def state(self) -> int:
        return self.flags >> 6

    def sound(self) -> bool:
        """Whether a receiver takes it (RFC 5880, 6.8.6); an authentication section may make it longer."""
        long_enough = self.length >= 26 if self.flags & AUTHENTICATION else self.length == _CONTROL.size
        known = self.first >> 5 == 1 and not self.flags & _MULTIPOINT and self.mine != 0
        return known and long_enough and self.multiplier > 0 and (self.yours != 0 or self.state < 2)

    def repeated(self) -> bytes:
        """As it is sent again: no Poll and no Final, which ask and answer once; no Echo, which a VM that stands still cannot loop."""
        flags = self.flags & ~(_POLL | _FINAL)
        return _CONTROL.pack(
            *(self.first, flags, self.multiplier, self.length, self.mine, self.yours),
            *(self.desired_tx_us, self.required_rx_us, 0),
        )


def parse(frame: bytes) -> Keepalive | Unanswerable | None:
    """A control packet the VM sent, ready to be sent again; None if ``frame`` is not BFD."""
    found = _control(frame)
    if found is None:
        return None
    packet, key, control = found
    why = _unanswerable(packet, control)
    return Unanswerable(key, why) if why else _keepalive(packet, key, control)


def parse_heard(frame: bytes) -> Heard | None:
    """A control packet the neighbour sent to the VM; None if it is none, or one the VM would not take."""
    found = _control(frame)
    if found is None or not found[2].sound() or not udp_is_sound(found[0]):
        return None
    _packet, key, control = found
    own = Key(key.protocol, key.destination, key.source, key.instance)
    return Heard(own, control.yours, control.state == _UP, control.required_rx_us / _US_A_SECOND)


def _control(frame: bytes) -> tuple[Packet, Key, Control] | None:
    packet = read(frame)
    ports = udp_ports(packet) if packet else None
    if packet is None or ports is None or len(packet.payload) < UDP_BYTES + _CONTROL.size:
        return None
    port = ports[1]
    # GTSM (RFC 5881, section 5); across hops anything may be left (RFC 5883)
    if port != MULTIHOP_PORT and (port != SINGLE_HOP_PORT or packet.hop_limit != 255):
        return None
    control = Control(*_CONTROL.unpack_from(packet.data, packet.at + UDP_BYTES))
    return packet, Key("bfd", packet.source, packet.destination, port), control


def _unanswerable(packet: Packet, control: Control) -> Why | None:
    if not control.sound() or not udp_is_sound(packet):
        return Why.MALFORMED
    if control.flags & AUTHENTICATION:
        return Why.AUTHENTICATED
    if control.state != _UP:
        return Why.NOT_UP
    return Why.DEMAND if control.flags & _DEMAND else None


def _keepalive(packet: Packet, key: Key, control: Control) -> Keepalive:
    rest = packet.payload[UDP_BYTES + _CONTROL.size :]
    return Keepalive(
        key,
        with_udp_payload(packet, control.repeated() + rest),
        control.desired_tx_us / _US_A_SECOND,
        control.multiplier,
        # RFC 5880, 6.8.7: up to a quarter less; never more than 90 % where one missing packet is the end
        (0.75, 0.9) if control.multiplier == 1 else (0.75, 1.0),
        number=control.mine,
        changing=bool(control.flags & _POLL),
        at_once=control.required_echo_us != 0,
    )
