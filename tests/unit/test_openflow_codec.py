"""Our encoding against an independent implementation (os-ken), both ways, for OpenFlow 1.3 and 1.4."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.ofproto import ofproto_parser, ofproto_protocol

from controller_bridge.openflow import action, bundle, flow, group, hello, multipart, packet
from controller_bridge.openflow.flow import Command, Flow
from controller_bridge.openflow.match import Field, Match
from controller_bridge.openflow.wire import V13, V14, Framer, Message, Type, message

VERSIONS = (V13, V14)
MAC = bytes.fromhex("525400000001")


def theirs(version: int) -> Any:
    return ofproto_protocol.ProtocolDesc(version=version)


def understood(raw: bytes) -> Any:
    """As os-ken reads one message."""
    version, kind, length, xid = ofproto_parser.header(raw)
    assert length == len(raw)
    return ofproto_parser.msg(theirs(version), version, kind, length, xid, raw)


def sent(made: Any) -> Message:
    """One message of os-ken's as we frame it."""
    made.set_xid(77)
    made.serialize()
    (one,) = Framer().feed(bytes(made.buf))
    return one


MATCHES: dict[str, dict[str, Any]] = {
    "everything": {},
    "port": {"in_port": 3},
    "mac": {"eth_dst": MAC},
    "ipv4": {"eth_type": 0x0800, "ipv4_dst": IPv4Address("192.0.2.1")},
    "prefix": {"eth_type": 0x0800, "ipv4_src": IPv4Network("198.51.100.0/24"), "ip_proto": 17, "udp_dst": 53},
    "ipv6": {"eth_type": 0x86DD, "ipv6_dst": IPv6Address("2001:db8::1")},
    "ipv6 prefix": {"eth_type": 0x86DD, "ipv6_src": IPv6Network("2001:db8::/32")},
    "host prefix": {"eth_type": 0x0800, "ipv4_dst": IPv4Network("192.0.2.1/32")},
    "arp": {"eth_type": 0x0806, "arp_op": 1, "arp_tpa": IPv4Address("192.0.2.9"), "in_port": 7},
    "lldp": {"eth_type": 0x88CC, "eth_dst": bytes.fromhex("0180c200000e")},
}


def as_text(value: Any) -> Any:
    """A field's value as os-ken writes it."""
    if isinstance(value, bytes):
        return value.hex(":")
    if isinstance(value, IPv4Network | IPv6Network):
        exact = value.prefixlen == value.max_prefixlen
        return str(value.network_address) if exact else (str(value.network_address), str(value.netmask))
    return value if isinstance(value, int) else str(value)


def usual(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: as_text(value) for name, value in fields.items()}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("what", MATCHES)
def test_flow_mods_are_read_as_they_were_meant(version: int, what: str) -> None:
    fields = MATCHES[what]
    instructions = action.apply([action.output(5), action.group(9)]) + action.goto_table(2)
    one = Flow(
        1000, Match.of(**fields), instructions, cookie=0xABCDEF, table=1, idle_s=10, hard_s=20, flags=1
    )
    read = understood(flow.flow_mod(version, 42, Command.ADD, one))
    assert (read.xid, read.command, read.priority, read.cookie) == (42, 0, 1000, 0xABCDEF)
    assert (read.table_id, read.idle_timeout, read.hard_timeout, read.flags) == (1, 10, 20, 1)
    assert dict(read.match.items()) == usual(fields)
    assert [type(each).__name__ for each in read.instructions] == [
        "OFPInstructionActions",
        "OFPInstructionGotoTable",
    ]
    assert [getattr(each, "port", None) or each.group_id for each in read.instructions[0].actions] == [5, 9]


def encoded(made: Any, xid: int) -> bytes:
    """As os-ken sends it."""
    made.set_xid(xid)
    made.serialize()
    return bytes(made.buf)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("what", MATCHES)
def test_flows_are_read_as_they_read_them(version: int, what: str) -> None:
    """The match and the instructions are os-ken's encoding; both read the whole entry."""
    parser = theirs(version).ofproto_parser
    rest = bytearray()
    parser.OFPMatch(**usual(MATCHES[what])).serialize(rest, 0)
    parser.OFPInstructionActions(4, [parser.OFPActionOutput(5, 0xFFFF)]).serialize(rest, len(rest))
    fixed = struct.pack("!HBxIIHHHHxxxxQQQ", 48 + len(rest), 2, 10, 20, 3, 4, 5, 1, 99, 6, 7)
    body = fixed + bytes(rest)
    (read,) = flow.flows_in(body)
    assert read == flow.FlowStats(
        Flow(3, Match.of(**MATCHES[what]), action.apply([action.output(5)]), 99, 2, 4, 5, 1), 6, 7
    )
    again = parser.OFPFlowStats.parser(body, 0)
    assert dict(again.match.items()) == usual(MATCHES[what])
    assert (again.priority, again.table_id, again.idle_timeout, again.hard_timeout) == (3, 2, 4, 5)
    assert (again.cookie, again.packet_count, again.byte_count, again.flags) == (99, 6, 7, 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_deleting_bears_no_instructions(version: int) -> None:
    one = Flow(5, Match.of(eth_dst=MAC), action.apply([action.output(1)]), cookie=3)
    read = understood(flow.flow_mod(version, 1, Command.DELETE_STRICT, one, flow.EXACTLY))
    assert (read.command, read.instructions, read.cookie_mask, read.out_port) == (
        4,
        [],
        flow.EXACTLY,
        0xFFFFFFFF,
    )
    everything = understood(flow.delete_all(version, 2, cookie=3))
    assert (everything.command, everything.table_id, list(everything.match.items())) == (3, 0xFF, [])


@pytest.mark.parametrize("version", VERSIONS)
def test_setting_a_field(version: int) -> None:
    instructions = action.apply([action.set_field(Field.ETH_DST, MAC), action.output(action.PORT_IN)])
    read = understood(flow.flow_mod(version, 1, Command.ADD, Flow(1, Match(), instructions)))
    setting, out = read.instructions[0].actions
    assert (setting.key, setting.value, out.port) == ("eth_dst", MAC.hex(":"), 0xFFFFFFF8)


@pytest.mark.parametrize("version", VERSIONS)
def test_bundles(version: int) -> None:
    parser = theirs(version).ofproto_parser
    one = Flow(1, Match.of(in_port=1), action.apply([action.output(2)]))
    apply = parser.OFPInstructionActions(4, [parser.OFPActionOutput(2, 0xFFFF)])
    inner = parser.OFPFlowMod(
        theirs(version),
        priority=1,
        match=parser.OFPMatch(in_port=1),
        instructions=[apply],
        out_port=0xFFFFFFFF,
        out_group=0xFFFFFFFF,
    )
    inner.set_xid(9)
    kind = "ONFBundle" if version == V13 else "OFPBundle"
    added = getattr(parser, f"{kind}AddMsg")(theirs(version), 4, 3, inner, [])
    control = getattr(parser, f"{kind}CtrlMsg")(theirs(version), 4, 4, 3, [])
    assert bundle.add(version, 9, 4, flow.flow_mod(version, 9, Command.ADD, one)) == encoded(added, 9)
    assert bundle.control(version, 9, 4, bundle.Control.COMMIT_REQUEST) == encoded(control, 9)


@pytest.mark.parametrize("version", VERSIONS)
def test_groups_and_packets_out(version: int) -> None:
    parser, no_one = theirs(version).ofproto_parser, 0xFFFFFFFF
    buckets = [parser.OFPBucket(0, port, no_one, [parser.OFPActionOutput(port, 0xFFFF)]) for port in (1, 2)]
    ours = [group.bucket([action.output(port)], watch_port=port) for port in (1, 2)]
    made = parser.OFPGroupMod(theirs(version), 0, 3, 5, buckets)
    assert group.group_mod(version, 3, group.Command.ADD, 5, group.Kind.FAST_FAILOVER, ours) == encoded(
        made, 3
    )
    out = parser.OFPPacketOut(
        theirs(version), no_one, 0xFFFFFFFD, [parser.OFPActionOutput(7, 0xFFFF)], b"frame" * 20
    )
    assert packet.packet_out(version, 4, [action.output(7)], b"frame" * 20) == encoded(out, 4)


@pytest.mark.parametrize("version", VERSIONS)
def test_packets_in(version: int) -> None:
    parser = theirs(version).ofproto_parser
    for fields in ({"in_port": 6}, {"in_port": 6, "metadata": 5}):
        made = parser.OFPPacketIn(
            theirs(version), 0xFFFFFFFF, 60, 1, 2, 77, parser.OFPMatch(**fields), b"x" * 60
        )
        raw = packet_in_of(version, made)
        assert packet.packet_in(raw) == packet.PacketIn(0xFFFFFFFF, 60, 1, 2, 77, 6, b"x" * 60)


def packet_in_of(version: int, made: Any) -> Message:
    """os-ken reads packet-ins, and writes none: its match's encoding and the fixed fields of the specification."""
    match = bytearray()
    made.match.serialize(match, 0)
    fixed = made.buffer_id.to_bytes(4, "big") + made.total_len.to_bytes(2, "big")
    fixed += bytes([made.reason, made.table_id]) + made.cookie.to_bytes(8, "big")
    raw = message(version, Type.PACKET_IN, 1, fixed + bytes(match) + b"\0\0" + made.data)
    again = understood(raw)
    assert (again.match["in_port"], again.data) == (6, made.data)
    return Message(version, Type.PACKET_IN, 1, raw[8:])


@pytest.mark.parametrize("version", VERSIONS)
def test_questions(version: int) -> None:
    parser = theirs(version).ofproto_parser
    match = parser.OFPMatch(in_port=2)
    flows = parser.OFPFlowStatsRequest(theirs(version), 0, 3, 0xFFFFFFFF, 0xFFFFFFFF, 5, 0xFF, match)
    asked = multipart.request(
        version, 8, multipart.Part.FLOW, flow.flow_query(5, 0xFF, 3, Match.of(in_port=2))
    )
    assert asked == encoded(flows, 8)
    if version == V13:
        assert multipart.request(version, 8, multipart.Part.PORT_DESC) == encoded(
            parser.OFPPortDescStatsRequest(theirs(version), 0), 8
        )


@pytest.mark.parametrize("version", VERSIONS)
def test_ports(version: int) -> None:
    """Two, one of them down; read by os-ken, too."""
    parser, head = (
        theirs(version).ofproto_parser,
        "!Ixxxx6sxx16sII24x" if version == V13 else "!IHxx6sxx16sII",
    )
    length = [] if version == V13 else [40]
    bodies = [
        struct.pack(head, number, *length, MAC, name, 0, state)
        for number, name, state in ((3, b"eth0", 4), (4, b"eth1", 1))
    ]
    up, down = multipart.ports_in(version, b"".join(bodies))
    assert (up.number, up.mac, up.name, up.live) == (3, MAC, "eth0", True)
    assert (down.number, down.name, down.live) == (4, "eth1", False)
    for ours, body in zip((up, down), bodies, strict=True):
        again = parser.OFPPort.parser(body, 0)
        name = again.name if isinstance(again.name, str) else again.name.decode()
        assert (again.port_no, again.hw_addr, name.rstrip("\0"), again.state) == (
            ours.number,
            MAC.hex(":"),
            ours.name,
            ours.state,
        )


@pytest.mark.parametrize("version", VERSIONS)
def test_who_speaks_what(version: int) -> None:
    said = understood(hello.hello(VERSIONS))
    assert sorted(said.elements[0].versions) == list(VERSIONS)
    parser = theirs(version).ofproto_parser
    answer = sent(parser.OFPHello(theirs(version), [parser.OFPHelloElemVersionBitmap([1, version])]))
    assert hello.negotiate(answer, VERSIONS) == version
    assert hello.negotiate(Message(version, Type.HELLO, 1, b""), VERSIONS) == version
    error = sent(parser.OFPErrorMsg(theirs(version), 5, 1, b"what was sent"))
    assert str(hello.refusal(error)) == "flow mod failed: table full"


names = st.sampled_from([name for name, fields in MATCHES.items() if "in_port" not in fields])


@given(names, st.integers(1, 0xFFFFFF00), st.integers(1, 0xFFFFFF00))
def test_a_match_at_a_port(what: str, port: int, other: int) -> None:
    match = Match.of(**MATCHES[what])
    at = match.at_port(port)
    assert at == Match.of(**MATCHES[what], in_port=port)
    assert at.at_port(other) == match.at_port(other)
    assert at.covers(match) and (not match.covers(at))


@given(st.lists(st.integers(1, 10), min_size=1, max_size=5), st.integers(1, 10), st.integers(11, 20))
def test_redirecting_changes_ports_and_nothing_else(ports: list[int], old: int, new: int) -> None:
    instructions = action.apply(
        [action.set_field(Field.ETH_DST, MAC), *map(action.output, ports)]
    ) + action.goto_table(3)
    changed = action.redirected(instructions, old, new)
    wanted = [new if port == old else port for port in ports]
    assert action.outputs(changed) == wanted
    assert changed == action.apply(
        [action.set_field(Field.ETH_DST, MAC), *map(action.output, wanted)]
    ) + action.goto_table(3)
