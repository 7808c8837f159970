"""Which flows a destination's Open vSwitch gets before the guest runs there; and peers and switches that talk nonsense."""

import asyncio
import json
import random
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from dom0.dataplane.senders import HEADER_BYTES, MOST_SENDERS, Senders, is_sender, scout, setup_frame, vlan_of
from dom0.flow_setup import FlowSetup, PortFlows, of_message, read_senders
from dom0.ovs_addresses import Place, SwitchAddresses, SwitchPort, addresses, switch_ports, system_ports

GUEST = bytes.fromhex("525400000001")
CLIENT, OTHER = bytes.fromhex("4a130ec43241"), bytes.fromhex("4a130ec43242")
TO_GUEST = {"dst": GUEST.hex(":"), "src": CLIENT.hex(":")}

FDB = """ port  VLAN  MAC                Age
    1     0  4a:13:0e:c4:32:41   57
    1    10  52:54:00:00:00:01   55
    3    10  4a:13:0e:c4:32:42  static
LOCAL     0  02:76:6d:44:25:79    1
nonsense
"""
DPIF = """netdev@ovs-netdev: hit:1 missed:1
  br9:
    up9 1/2: (system)
system@ovs-system: hit:16041 missed:52
  br0:
    br0 65534/1: (internal)
    up0 1/2: (system)
    vnet1 3/3: (system)
    out 4/none: (patch: peer=in)
    gre0 5/6: (gre: remote_ip=10.0.0.9)
  br1:
    up1 1/7: (system)
"""
NONE: list[object] = ["set", []]
NAMES = ("br0", "up0", "vnet1", "vnet2", "n1", "eth1", "eth2")
INTERFACES = json.dumps(
    {"data": [[["uuid", f"u-{one}"], one] for one in NAMES], "headings": ["_uuid", "name"]}
)
PORTS = json.dumps(
    {
        "data": [
            ["br0", NONE, NONE, ["uuid", "u-br0"]],
            ["up0", NONE, NONE, ["uuid", "u-up0"]],
            ["vnet1", 10, NONE, ["uuid", "u-vnet1"]],
            ["vnet2", 10, NONE, ["uuid", "u-vnet2"]],
            ["n1", 10, "native-tagged", ["uuid", "u-n1"]],
            ["bond0", NONE, NONE, ["set", [["uuid", "u-eth1"], ["uuid", "u-eth2"]]]],
        ],
        "headings": ["name", "tag", "vlan_mode", "interfaces"],
    }
)


def switch() -> SwitchAddresses:
    devices = system_ports(DPIF, "br0")
    return SwitchAddresses(devices, switch_ports(PORTS, INTERFACES), addresses(FDB), frozenset({"vnet1"}))


def test_what_the_switch_says_is_read() -> None:
    read = switch()
    assert read.devices == {1: "up0", 3: "vnet1"}
    assert read.ports["vnet1"] == SwitchPort("vnet1", 10, True) and read.ports["up0"] == SwitchPort("up0")
    assert not read.ports["n1"].untagged
    assert read.ports["eth1"] == read.ports["eth2"] == SwitchPort("bond0")
    assert read.behind == {
        (0, CLIENT): 1,
        (10, GUEST): 1,
        (10, OTHER): 3,
        (0, bytes.fromhex("02766d442579")): 65534,
    }


def test_a_switch_whose_datapath_is_not_the_kernels_has_no_ports_here() -> None:
    assert system_ports(DPIF, "br9") == {} and system_ports(DPIF, "br7") == {}


def test_where_a_sender_is() -> None:
    read = switch()
    assert read.place(0, CLIENT, GUEST) == Place("up0", 0)
    assert read.place(10, OTHER, GUEST) == Place("vnet1", 0)  # an access port: no tag
    assert read.place(10, CLIENT, GUEST) == Place(
        "up0", 10
    )  # not heard in that VLAN: where the guest still is
    assert read.place(20, CLIENT, GUEST) == Place(
        "up0", 20
    )  # nobody heard in that VLAN: from outside, by the only way in
    assert read.place(0, bytes.fromhex("02766d442579"), GUEST) is None  # the host itself
    assert (read.vlan_at("vnet1", 0), read.vlan_at("vnet1", 7), read.vlan_at("up0", 0)) == (10, 7, 0)


def test_who_has_not_been_heard_comes_by_the_only_way_in_if_there_is_one() -> None:
    ports = switch_ports(PORTS, INTERFACES)
    bond = SwitchAddresses({1: "eth1", 2: "eth2", 3: "vnet1"}, ports, {}, frozenset({"vnet1"}))
    assert bond.place(0, CLIENT, GUEST) == Place("eth1", 0)
    two = SwitchAddresses({1: "eth1", 2: "up0", 3: "vnet1"}, ports, {}, frozenset({"vnet1"}))
    assert two.place(0, CLIENT, GUEST) is None
    assert SwitchAddresses({3: "vnet1"}, ports, {}, frozenset({"vnet1"})).place(0, CLIENT, GUEST) is None


@pytest.mark.parametrize("text", ["", "[]", '{"data":[["x"]]}', '{"data":7}', "null", PORTS[:60]])
def test_a_table_of_ports_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no table of ports"):
        switch_ports(text, INTERFACES)
    with pytest.raises(ValueError, match="no table of ports"):
        switch_ports(PORTS, text)


def test_the_senders_are_those_to_the_guest_alone_and_the_newest_of_each_kind() -> None:
    senders = Senders(GUEST)
    first, second = (bytes(Ether(**TO_GUEST) / IP() / UDP(sport=one) / bytes(900)) for one in (1, 2))
    senders.note(first)
    senders.note(second)
    senders.note(bytes(Ether(**TO_GUEST) / ARP()))
    senders.note(bytes(Ether(**TO_GUEST) / IPv6() / TCP()))
    for other in (
        Ether(src=CLIENT.hex(":"), dst="ff:ff:ff:ff:ff:ff") / ARP(),
        Ether(src=CLIENT.hex(":"), dst=OTHER.hex(":")) / IP(),
        Ether(src=GUEST.hex(":"), dst=GUEST.hex(":")) / IP() / UDP(),
        Ether(src="33:33:00:00:00:01", dst=GUEST.hex(":")) / IP() / UDP(),
        Ether(**TO_GUEST) / IP(flags="MF") / UDP(),
        Ether(**TO_GUEST) / IP(frag=9),
    ):
        senders.note(bytes(other))
    assert senders.headers[0] == second[:HEADER_BYTES]
    assert [one[12:14].hex() for one in senders.headers] == ["0800", "0806", "86dd"]


def test_the_newest_64_senders_are_kept() -> None:
    senders = Senders(GUEST)
    for number in range(200):
        senders.note(bytes(Ether(dst=GUEST.hex(":"), src=f"4a:00:00:00:00:{number:02x}") / IP() / UDP()))
    assert len(senders.headers) == MOST_SENDERS
    assert senders.headers[-1][11] == 199 and senders.headers[0][11] == 136


@pytest.mark.parametrize("tag", [0, 10])
@pytest.mark.parametrize("own_tag", [0, 7])
@pytest.mark.parametrize("version", [4, 6])
def test_a_setup_frame_looks_to_a_switch_as_the_senders_do(version: int, own_tag: int, tag: int) -> None:
    body = (IP(src="10.0.0.1", dst="10.0.0.9") if version == 4 else IPv6(src="fd00::1", dst="fd00::9")) / TCP(
        sport=1234, dport=80
    )
    sent = bytes(Ether(**TO_GUEST) / (Dot1Q(vlan=own_tag) / body if own_tag else body) / bytes(1000))
    header = sent[:HEADER_BYTES]
    assert vlan_of(header) == own_tag
    frame = setup_frame(header, tag)
    seen = Ether(frame)
    assert len(frame) <= HEADER_BYTES + 4 and (seen.dst, seen.src) == (TO_GUEST["dst"], TO_GUEST["src"])
    assert (seen[Dot1Q].vlan if tag else 0) == tag and seen.haslayer(Dot1Q) == bool(tag)
    layer = seen[IP] if version == 4 else seen[IPv6]
    assert (layer.src, layer.dst, layer[TCP].sport, layer[TCP].dport) == (body.src, body.dst, 1234, 80)
    at = 14 + (4 if tag else 0)
    assert (layer.len if version == 4 else layer.plen + 40) == len(frame) - at


def test_a_peers_senders_are_believed_as_far_as_they_are_to_the_guest() -> None:
    good = bytes(Ether(**TO_GUEST) / IP() / UDP())[:60]
    to_other = bytes(Ether(src=CLIENT.hex(":"), dst=OTHER.hex(":")) / IP() / UDP())
    raw = [good.hex(), "zz", 7, None, "", to_other.hex(), (good + bytes(200)).hex(), good[:13].hex()]
    assert read_senders(raw, GUEST) == [good]
    assert read_senders([good.hex()] * 500, GUEST) == [good] * MOST_SENDERS
    for nonsense in (None, 7, "x", {"a": 1}):
        assert read_senders(nonsense, GUEST) == []
        assert of_message({"senders": nonsense}) == ({"a": 1} if isinstance(nonsense, dict) else {})


def test_damaged_headers_make_no_trouble() -> None:
    dice = random.Random(7)
    good = bytes(Ether(**TO_GUEST) / Dot1Q(vlan=7) / IP() / UDP() / bytes(60))
    senders = Senders(GUEST)
    for _ in range(3000):
        raw = bytearray(good[: dice.randrange(len(good) + 1)])
        for _ in range(dice.randrange(4)):
            if raw:
                raw[dice.randrange(len(raw))] = dice.randrange(256)
        header = bytes(raw)
        senders.note(header)
        if is_sender(header, GUEST):
            assert len(setup_frame(header, dice.choice((0, 9)))) >= 60
            assert 0 <= vlan_of(header) < 4096


class Port:
    """``loses``: how many frames of each turn the switch does not bring, until it knows the guest."""

    def __init__(self, loses: int = 0) -> None:
        self.settings = SimpleNamespace(mac=GUEST)
        self.tap, self.set_up, self.loses = "vnet2", 0, loses
        self.sent: list[tuple[str, int]] = []

    def send_setup(self, port: str, frames: Sequence[bytes]) -> None:
        if port == "gone":
            raise OSError("no such device")
        self.sent.append((port, len(frames)))
        self.set_up += max(0, len(frames) - self.loses)


def headers(*sources: bytes) -> list[bytes]:
    return [bytes(Ether(dst=GUEST.hex(":"), src=one.hex(":")) / IP() / UDP())[:42] for one in sources]


def flows(port: Port) -> PortFlows:
    made = PortFlows(port)  # type: ignore[arg-type]
    made.switch = switch()
    return made


def turns(made: PortFlows, number: int) -> None:
    for _ in range(number):
        made.turn()


def test_each_sender_has_its_flow_from_the_port_where_it_is_once_the_switch_knows_the_guest() -> None:
    port = Port()
    made = flows(port)
    made.want(headers(CLIENT, CLIENT, OTHER))
    assert made.missing == 3
    made.turn()
    assert sorted(port.sent) == [("up0", 1), ("vnet1", 1)] and made.missing == 3, "scouts"
    made.turn()
    assert sorted(port.sent[2:]) == [("up0", 2), ("vnet1", 1)]
    made.turn()
    assert made.missing == 0
    turns(made, 50)
    assert len(port.sent) == 4, "they are there: nothing more is sent"


def test_a_switch_that_does_not_yet_know_the_guest_is_asked_again_and_gets_no_senders_frames() -> None:
    port = Port(loses=1)
    made = flows(port)
    made.want(headers(CLIENT, CLIENT))
    turns(made, 20)
    assert set(port.sent) == {("up0", 1)} and 2 <= len(port.sent) <= 4 and made.missing == 2
    port.loses = 0
    turns(made, 20)
    assert port.sent[-1] == ("up0", 2) and made.missing == 0


def test_frames_of_senders_that_do_not_come_are_sent_again() -> None:
    port = Port()
    made = flows(port)
    made.want(headers(CLIENT, CLIENT))
    made.turn()
    port.loses = 1
    turns(made, 3)
    assert made.missing == 1
    port.loses = 0
    turns(made, 20)
    assert port.sent == [("up0", 1), ("up0", 2), ("up0", 2)] and made.missing == 0


def test_scouts_are_from_nobody_and_each_from_another() -> None:
    one, other = Ether(scout(GUEST, 0)), Ether(scout(GUEST, 10))
    assert one.dst == other.dst == GUEST.hex(":") and one.src != other.src
    assert one.type == 0x88B5 and other[Dot1Q].vlan == 10 and other[Dot1Q].type == 0x88B5
    assert len(bytes(one)) == 60


def test_senders_that_cannot_be_placed_or_whose_port_has_gone_stay_missing() -> None:
    port = Port()
    made = PortFlows(port)  # type: ignore[arg-type]
    made.switch = SwitchAddresses(
        {1: "gone", 2: "up0"},
        {"gone": SwitchPort("gone"), "up0": SwitchPort("up0")},
        {(0, CLIENT): 1, (0, OTHER): 2},
    )
    port.tap = "untagged"
    made.want(headers(CLIENT, OTHER, bytes.fromhex("4a130ec43299")))
    turns(made, 30)
    assert made.missing == 2 and port.sent == [("up0", 1), ("up0", 1)]


def test_without_a_datapath_in_the_kernel_nothing_is_missing() -> None:
    made = PortFlows(Port())  # type: ignore[arg-type]
    made.switch = SwitchAddresses()
    made.want(headers(CLIENT))
    made.turn()
    assert made.missing == 0


def test_of_a_switch_that_has_not_answered_yet_nothing_is_known() -> None:
    made = PortFlows(Port())  # type: ignore[arg-type]
    made.want(headers(CLIENT, OTHER))
    turns(made, 9)
    assert made.missing == 2


def test_what_was_missing_when_the_guest_went_on_is_said() -> None:
    async def body(loses: int) -> int:
        setup = FlowSetup([Port(loses)])  # type: ignore[list-item]
        (one,) = setup._flows.values()
        one.switch = switch()
        setup.want({GUEST.hex(":"): [one.hex() for one in headers(CLIENT)], "52:54:00:00:00:99": "x"})
        working = asyncio.create_task(setup.set_up())
        await asyncio.sleep(0.05)
        setup.resumed()
        await asyncio.wait_for(working, 1)
        return setup.missing_at_resume

    assert asyncio.run(body(1)) == 1
    assert asyncio.run(body(0)) == 0


def test_flows_are_used_while_the_guest_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open vSwitch removes those that nothing uses."""
    monkeypatch.setattr("dom0.flow_setup.KEEP_S", 0.01)

    async def body() -> tuple[int, int]:
        port = Port()
        setup = FlowSetup([port])  # type: ignore[list-item]
        (one,) = setup._flows.values()
        one.switch = switch()
        setup.want({GUEST.hex(":"): [one.hex() for one in headers(CLIENT)]})
        working = asyncio.create_task(setup.set_up())
        while one.missing:
            await asyncio.sleep(0.005)
        before = port.set_up
        await asyncio.sleep(0.1)
        setup.resumed()
        await asyncio.wait_for(working, 1)
        return port.set_up - before, setup.missing_at_resume

    again, missing = asyncio.run(body())
    assert again >= 3
    assert missing == 0


def test_senders_that_are_named_when_the_guest_runs_have_no_flow() -> None:
    setup = FlowSetup([Port()])  # type: ignore[list-item]
    (one,) = setup._flows.values()
    one.switch = switch()
    setup.resumed()
    assert setup.missing_at_resume == 0
    setup.want({GUEST.hex(":"): [one.hex() for one in headers(CLIENT, OTHER)]})
    assert setup.missing_at_resume == 2
