"""The table that keeps others out of the tunnels: its text, and what is read of it."""

import json
from ipaddress import ip_address
from typing import Any

import pytest

from dom0 import doctor
from dom0.tunnel_filter import Found, found, ruleset


def _rules(peers: list[str], local: str | None = None) -> list[str]:
    text = ruleset([ip_address(one) for one in peers], local)
    return [line for line in text.splitlines() if "saddr" in line]


def test_each_address_once_and_in_order() -> None:
    assert _rules(["10.0.0.9", "2001:db8::1", "10.0.0.2", "10.0.0.9"]) == [
        "ip saddr 10.0.0.2 return",
        "ip saddr 10.0.0.9 return",
        "ip6 saddr 2001:db8::1 return",
    ]


def test_the_end_here_counts_for_its_own_family() -> None:
    assert _rules(["10.0.0.2", "2001:db8::1"], "10.0.0.1") == [
        "ip saddr 10.0.0.2 ip daddr 10.0.0.1 return",
        "ip6 saddr 2001:db8::1 return",
    ]


def test_a_link_local_address_goes_without_its_interface() -> None:
    assert _rules(["fe80::1%eth0"]) == ["ip6 saddr fe80::1 return"]


def _listed() -> dict[str, Any]:
    """As nft 1.0.6 says it."""
    return {
        "nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "inet", "name": "vmnet_tunnel"}},
            {"chain": {"family": "inet", "name": "peers"}},
            {"rule": {"chain": "peers", "expr": [{"match": {}}, {"return": None}]}},
            {"rule": {"chain": "peers", "expr": [{"counter": {"packets": 7, "bytes": 500}}, {"drop": None}]}},
            {"rule": {"chain": "input", "expr": [{"match": {}}, {"jump": {"target": "peers"}}]}},
        ]
    }


def test_what_was_dropped() -> None:
    assert found(_listed()) == Found(7)


@pytest.mark.parametrize("without", [3, 4, 5])
def test_a_table_with_a_rule_less_is_noticed_unless_a_peer_alone_is_missing(without: int) -> None:
    listed = _listed()
    del listed["nftables"][without]
    assert bool(found(listed).reason) == (without != 3)


@pytest.mark.parametrize("listed", [{}, {"nftables": None}, {"nftables": []}, {"nftables": [{"rule": {}}]}])
def test_an_empty_table_is_noticed(listed: dict[str, Any]) -> None:
    assert found(json.loads(json.dumps(listed))).reason


def test_what_doctor_says() -> None:
    good = doctor.tunnel_filter_row(Found(3))
    assert good["ok"] and "3 packets" in good["detail"]
    bad = doctor.tunnel_filter_row(Found(reason="nft cannot be run: install the package nftables"))
    assert not bad["ok"] and "install the package nftables" in bad["detail"]
