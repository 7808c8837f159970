"""Rows of a router's control table, as people write them."""

from ipaddress import ip_network

import pytest

from vmnet.control_rules import MOST_RULES, ControlRule, parse, parse_all


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ospf", ControlRule(89)),
        ("47", ControlRule(47)),
        ("udp 5000", ControlRule(17, (5000, 5000))),
        ("tcp 179-180 to 192.0.2.0/24", ControlRule(6, (179, 180), ip_network("192.0.2.0/24"))),
        ("to 2001:db8::/32", ControlRule(prefix=ip_network("2001:db8::/32"))),
        ("icmpv6 to fd00::1", ControlRule(58, None, ip_network("fd00::1/128"))),
    ],
)
def test_rules(text: str, rule: ControlRule) -> None:
    assert parse(text) == rule


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not"),
        ("ospf 1 2", "is not"),
        ("ospff", "is no IP protocol"),
        ("256", "is no IP protocol"),
        ("ospf 5", "ports"),
        ("udp x", "is no port"),
        ("udp 70000", "is no port"),
        ("udp 9-5", "ends before it begins"),
        ("to 10.0.0.1/24", "host bits"),
        ("to nowhere", "to nowhere"),
    ],
)
def test_what_is_no_rule_is_said(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)


def test_their_number_is_bounded() -> None:
    with pytest.raises(ValueError, match="more than 32"):
        parse_all(["ospf"] * (MOST_RULES + 1))
