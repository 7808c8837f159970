"""Nobody takes the places of the configured peers by being there first."""

from vmnet.peer.places import Places, plain

PEERS = ("192.0.2.1", "2001:db8::1")


def taken(places: Places, address: str, times: int) -> int:
    return sum(places.take(address) for _ in range(times))


def test_strangers_share_what_no_peer_needs() -> None:
    places = Places(PEERS, each=8, most=16)
    assert taken(places, "198.51.100.1", 1000) == 8
    assert sum(taken(places, f"198.51.100.{last}", 1000) for last in range(2, 100)) == 8
    assert taken(places, PEERS[0], 1000) == taken(places, PEERS[1], 1000) == 8


def test_what_is_given_back_can_be_taken() -> None:
    places = Places(PEERS, each=2, most=2)
    assert taken(places, "198.51.100.1", 3) == taken(places, PEERS[0], 3) == 2
    for address in ("198.51.100.1", PEERS[0]):
        places.give(address)
        assert taken(places, address, 2) == 1


def test_without_peers_all_are_alike() -> None:
    places = Places((), each=2, most=3)
    assert [taken(places, one, 5) for one in ("192.0.2.1", "192.0.2.2", "192.0.2.3")] == [2, 1, 0]


def test_an_address_has_one_spelling() -> None:
    places = Places(PEERS, each=1)
    assert places.take("::ffff:192.0.2.1") and not places.take("192.0.2.1")
    places.give("192.0.2.1")
    assert places.take("::ffff:192.0.2.1")
    assert plain("2001:DB8:0::1") == PEERS[1] and plain("this machine") == "this machine"
