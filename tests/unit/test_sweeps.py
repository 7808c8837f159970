"""A station's last frame is shown to everybody when all before it has left every switch: over any fabric, whatever is slow."""

import random as randoms

from hypothesis import given
from hypothesis import strategies as st

from controller_bridge.core.sweeps import Sweep
from controller_bridge.topology import Place, Topology

FRAME = b"\xff" * 6 + bytes(54)


def fabric(pairs: set[tuple[int, int]]) -> Topology:
    links = [(Place(f"s{one}", other), Place(f"s{other}", one)) for one, other in pairs]
    return Topology({f"s{number}" for pair in pairs for number in pair} | {"s0"}, links)


def test_one_switch_needs_no_hello() -> None:
    sweep = Sweep(Place("s0", 100), FRAME, 5)
    assert sweep.begin(fabric(set())) == []
    assert sweep.done


def test_a_hello_that_was_sent_before_says_nothing() -> None:
    sweep = Sweep(Place("s0", 100), FRAME, 5)
    assert sweep.begin(fabric({(0, 1)})) == [Place("s0", 1)]
    assert sweep.heard("s0", 4, Place("s1", 0), 6) == []
    assert not sweep.done
    sweep.heard("s0", 5, Place("s1", 0), 6)
    assert sweep.done


def test_a_switch_says_it_on_when_it_has_heard_it_from_all_sides() -> None:
    sweep = Sweep(Place("s0", 100), FRAME, 0)
    diamond = fabric({(0, 1), (0, 2), (1, 3), (2, 3)})
    assert sweep.begin(diamond) == [Place("s0", 1), Place("s0", 2)]
    assert sweep.heard("s1", 1, Place("s3", 1), 1) == [], "s1 has not heard it itself"
    assert sweep.heard("s0", 1, Place("s1", 0), 1) == [Place("s1", 3)]
    assert sweep.heard("s1", 2, Place("s3", 1), 2) == []
    assert not sweep.done
    assert sweep.heard("s0", 2, Place("s2", 0), 2) == [Place("s2", 3)]
    sweep.heard("s2", 3, Place("s3", 2), 3)
    assert sweep.done


@given(st.integers(1, 7), st.integers(0, 1 << 32))
def test_it_overtakes_nothing(count: int, seed: int) -> None:
    """Queues of every link, emptied in any order: when it is done, none of the station's packets is left in one."""
    random = randoms.Random(seed)
    pairs = {(random.randrange(at), at) for at in range(1, count)}
    for _ in range(count):
        one, other = sorted(random.sample(range(count), 2)) if count > 1 else (0, 0)
        if one != other:
            pairs.add((one, other))
    topology = fabric(pairs)
    distances = topology.distances("s0")
    queues: dict[Place, list[tuple[str, int]]] = {place: [] for place in topology.beyond}

    def spread(switch: str) -> None:
        """A packet of the station's goes on by some shortest way."""
        onward = [
            here
            for here, there in topology.beyond.items()
            if here.switch == switch and distances[there.switch] > distances[switch]
        ]
        if onward:
            queues[random.choice(onward)].append(("packet", 0))

    clock = 10
    for _ in range(20):
        spread("s0")
    sweep = Sweep(Place("s0", 100), FRAME, clock)
    for port in sweep.begin(topology):
        queues[port].append(("hello", clock))
    while not sweep.done:
        busy = [place for place, queue in queues.items() if queue]
        assert busy, "nothing is under way, and it waits"
        place = random.choice(busy)
        kind, sent = queues[place].pop(0)
        there = topology.beyond[place]
        if kind == "packet":
            spread(there.switch)
            continue
        clock += 1
        for port in sweep.heard(place.switch, sent, there, clock):
            queues[port].append(("hello", clock))
    assert not any(kind == "packet" for queue in queues.values() for kind, _sent in queue)
