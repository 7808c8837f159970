"""What the meter makes of hand-written arrivals."""

from vmnet.probe import meter, wire

MS = 1_000_000


def packet(seq: int, highest: int = 0, received: int = 0, hold_us: int = 0, tag: int = 9) -> bytes:
    return wire.DATA.pack(wire.MAGIC, wire.Type.DATA, tag, seq, highest, received, hold_us)


def test_lost_duplicated_and_reordered_are_told_apart():
    assert meter.count([0, 2, 1, 1, 4], 6) == meter.Counts(6, 4, 2, 1, 1, ((3, 3), (5, 5)))


def test_seq_that_was_never_sent_is_strange():
    assert meter.count([0, 9], 1).strange == 1


def test_longest_gap_and_where_it_began():
    assert meter.longest_gap([0, 10, 50, 60]) == meter.Gap(40, 10)
    assert meter.longest_gap([0, 10], end_ns=100) == meter.Gap(90, 10)
    assert meter.longest_gap([]) == meter.Gap()


def test_progress_is_reckoned_back_by_the_guests_hold():
    sent_ns = [0, 10 * MS]
    records = packet(0, 0, 1, hold_us=2000) + packet(1, 0, 1) + packet(2, 1, 2, hold_us=500)
    found = meter.decode(records, [5 * MS, 6 * MS, 13 * MS], 9, sent_ns)
    assert list(found.progress) == [3 * MS, 13 * MS - 500_000]
    assert list(found.received) == [1, 2]
    assert list(found.latencies) == [3 * MS, 2_500_000]


def test_packets_of_other_sessions_and_other_kinds_do_not_count():
    ack = wire.control(wire.Type.START_ACK, 9, 0, 22).ljust(wire.DATA_LEN, b"\0")
    found = meter.decode(ack + packet(3, tag=8) + packet(4), [1, 2, 3], 9, [])
    assert list(found.seqs) == [4]


def test_session_is_known_by_its_low_half():
    assert list(meter.decode(packet(0), [1], (1 << 40) + 9, []).seqs) == [0]


def test_percentile_is_the_nearest_rank():
    assert meter.percentile(range(1, 101), 50) == 50
    assert meter.percentile(range(1, 101), 99) == 99
    assert meter.percentile([7], 99) == 7
    assert meter.percentile([], 50) is None


def test_a_copy_made_by_the_network_is_not_sent_again_by_the_guest():
    assert meter.resent(packet(1, 4, 5) * 2 + packet(2, 4, 5), 9) == 0
    assert meter.resent(packet(1, 4, 5) + packet(1, 3, 4, hold_us=8), 9) == 1


def test_what_the_guest_had_and_then_denies_is_forgotten():
    assert meter.forgotten([(9, 10), (14, 15)], ((10, 13), (20, 25))) == 4
    assert meter.forgotten([(9, 8), (30, 20)], ((3, 4), (22, 40))) == 0
    assert meter.forgotten([(30, 25)], ((3, 4), (22, 40))) == 5
    assert meter.forgotten([], ((3, 4),)) == 0
