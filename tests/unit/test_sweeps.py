"""A station's last frame is shown to everybody when all before it has left every switch: over any fabric, whatever is slow."""

import random as randoms

from hypothesis import given
from hypothesis import strategies as st

from controller_bridge.core.sweeps import AGAIN_MS, GIVE_UP_MS, MOST_OF_ONE, Sweep, Sweeps
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


def test_a_hello_that_was_lost_is_sent_again() -> None:
    sweeps = Sweeps()
    assert sweeps.next_ms is None
    line = fabric({(0, 1), (1, 2)})
    assert sweeps.begin(Place("s0", 100), FRAME, line, 0) == [Place("s0", 1)]
    assert sweeps.again(AGAIN_MS - 1) == []
    assert sweeps.next_ms == AGAIN_MS
    assert sweeps.again(AGAIN_MS) == [Place("s0", 1)]
    assert sweeps.heard("s0", AGAIN_MS, Place("s1", 0), 30) == [Place("s1", 2)]
    assert sweeps.again(2 * AGAIN_MS) == [Place("s1", 2)], "s1 has it"
    sweeps.heard("s1", 2 * AGAIN_MS, Place("s2", 1), 50)
    assert [one.frame for one in sweeps.take_done()] == [FRAME] and not sweeps.take_done()
    assert sweeps.again(3 * AGAIN_MS) == [] and sweeps.next_ms is None


def test_a_switch_that_does_not_answer_is_given_up() -> None:
    sweeps = Sweeps()
    sweeps.begin(Place("s0", 100), FRAME, fabric({(0, 1)}), 0)
    assert sweeps.again(GIVE_UP_MS - 1) and not sweeps.again(GIVE_UP_MS + AGAIN_MS)
    assert len(sweeps) == 0 and sweeps.next_ms is None


def test_a_frame_takes_no_others_place_and_a_station_has_only_some() -> None:
    sweeps = Sweeps()
    topology = fabric({(0, 1)})
    assert sweeps.begin(Place("s0", 100), FRAME, topology, 0)
    assert not sweeps.begin(Place("s0", 100), FRAME, topology, 5), "it is under way, and began earlier"
    for number in range(1, 9):
        sweeps.begin(Place("s0", 100), FRAME[:-1] + bytes([number]), topology, 5)
    assert len(sweeps) == MOST_OF_ONE
    sweeps.heard("s0", 0, Place("s1", 0), 6)
    assert [one.frame for one in sweeps.take_done()] == [FRAME], "the others' hellos have not come"


@given(st.integers(1, 7), st.integers(0, 1 << 32), st.sampled_from([0.0, 0.3]))
def test_it_overtakes_nothing(count: int, seed: int, loss: float) -> None:
    """Queues of every link, emptied in any order: when it is done, none of the station's packets is left in one. Hellos get lost."""
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
    sweeps = Sweeps()

    def hellos(ports: list[Place]) -> None:
        for port in ports:
            if random.random() >= loss:
                queues[port].append(("hello", clock))

    hellos(sweeps.begin(Place("s0", 100), FRAME, topology, clock))
    while not sweeps.take_done():
        busy = [place for place, queue in queues.items() if queue]
        if not busy:
            assert loss and sweeps.next_ms is not None, "nothing is under way, and it waits"
            clock = sweeps.next_ms
            hellos(sweeps.again(clock))
            continue
        place = random.choice(busy)
        kind, sent = queues[place].pop(0)
        there = topology.beyond[place]
        if kind == "packet":
            spread(there.switch)
            continue
        clock += 1
        hellos(sweeps.heard(place.switch, sent, there, clock))
    assert not any(kind == "packet" for queue in queues.values() for kind, _sent in queue)
