"""The router bench: order of runs, what a flow lost, which sessions went down, rows, their file, and what pictures show."""

import json
from dataclasses import replace

import pytest

from controller_bridge.by_hand import Times
from vmnet.bench import (
    flaps,
    flow,
    flow_count,
    libvirt_job,
    pisa,
    pisa_flow_rows,
    pisa_output,
    pisa_rows,
    pisa_schemes,
)
from vmnet.bench.flow_count import FlowResult
from vmnet.bench.pisa_flow_rows import Rerouted
from vmnet.bench.pisa_rows import Case, Moved, Observed, Step
from vmnet.errors import ConfigError
from vmnet.lab import sessions
from vmnet.probe import wire
from vmnet.report import pisa_data, pisa_plots

MS = 1_000_000
CASE = Case("separation", 1000, 64)
SCHEMES = ("standard", "separation", "separation-virsh")


def settings(**changed):
    return pisa.Settings(
        **{"schemes": SCHEMES, "rates": [100], "sizes": [64], "runs": 2, "fewer": 1, **changed}
    )


def test_controls_of_each_lab_come_first_and_schemes_take_turns():
    assert [(s.case.scheme, s.run, s.control) for s in pisa.steps(settings())] == [
        ("standard", 0, True),
        ("separation", 0, True),
        ("standard", 0, False),
        ("separation", 0, False),
        ("separation-virsh", 0, False),
        ("separation", 1, False),
        ("standard", 1, False),
    ]


def test_a_resumed_bench_does_only_what_has_no_good_row():
    done = [
        replace(row(), scheme=s.case.scheme, rate_pps=100, run=s.run, control=s.control)
        for s in pisa.steps(settings())
    ]
    bad = pisa_rows.failed(done[3].case, 0, False, "a", "no route")
    assert [step.key for step in pisa.remaining(settings(), [*done[:3], bad, *done[4:]])] == [
        (bad.case, 0, False)
    ]


def test_a_run_that_is_left_out_is_not_tried_again():
    left_out = [
        pisa_rows.failed(s.case, s.run, s.control, "", f"{pisa.NOT_RUN}: too fast")
        for s in pisa.steps(settings())
    ]
    assert pisa.remaining(settings(), left_out) == []
    assert pisa.Bench({}, [*left_out, pisa_rows.failed(CASE, 9, False, "", "x")]).rows == left_out


def test_a_rate_that_the_vm_itself_can_not_forward_is_left_out_for_it_alone():
    lost = replace(row(), scheme="standard", control=True, lost=7)
    step = Step(lost.case, 0, False)
    assert pisa.too_fast(step, [lost]) == "without a migration the VM lost 7 packets at this rate"
    assert not pisa.too_fast(replace(step, control=True), [lost])
    assert not pisa.too_fast(step, [replace(lost, lost=0)])
    assert not pisa.too_fast(Step(CASE, 0, False), [replace(lost, scheme="separation")])


def test_a_rate_that_the_switches_can_not_carry_is_left_out():
    step = Step(FLOWS, 0, False)
    control = replace(
        flow_row(moved=False), control=True, sent=4000, back_sent=3900, lost=0, back_lost=0, seconds=4.0
    )
    assert not pisa.too_fast(step, [control])
    assert "switches lost 5 packets" in pisa.too_fast(step, [replace(control, lost=2, back_lost=3)])
    assert "only 500 packets/s of this rate" in pisa.too_fast(step, [replace(control, back_sent=2000)])
    assert not pisa.too_fast(replace(step, control=True), [replace(control, lost=2)])
    assert not pisa.too_fast(step, [replace(control, lost=2, rate_pps=2000)])


def test_what_comes_first_of_a_run_that_is_not_made():
    rows = [replace(row(), scheme="standard", control=True, lost=7)]
    done = pisa.Bench({"standard": Untouched()}, rows).step(Step(rows[0].case, 0, False))
    assert done.error == "not run: without a migration the VM lost 7 packets at this rate"


class Untouched:
    """No lab is looked at."""


def test_schemes():
    found = pisa_schemes.find([*SCHEMES, "openflow"])
    assert [one.lab for one in found] == ["standard", "separation", "separation", "openflow"]
    with pytest.raises(ConfigError, match="no scheme 'x'"):
        pisa_schemes.find(["x"])


def test_flows_have_controls_of_their_own_and_take_turns():
    every = [
        (s.case.scheme, s.control) for s in pisa.steps(settings(schemes=("standard", "openflow"), runs=2))
    ]
    assert every == [
        ("standard", True), ("openflow", True),
        ("standard", False), ("openflow", False), ("openflow", False), ("standard", False),
    ]  # fmt: skip


def test_sizes_are_of_ip_packets():
    assert flow_count.payload_bytes(64, ipv6=False) == 64 - 20 - 8
    assert flow_count.payload_bytes(1500, ipv6=True) == 1500 - 40 - 8
    assert flow_count.payload_bytes(64, ipv6=True) == wire.DATA_LEN


def test_a_late_sender_makes_no_burst_that_a_queue_of_1000_would_not_take():
    for rate in (1, 100, 1000, 10_000, 100_000, 400_000):
        assert flow.late_ns(rate) * rate / 1e9 <= 500
    assert flow.late_ns(1000) == 20 * MS


def test_only_packets_of_the_flow_count():
    ours, others = wire.data(5, 3, 22), wire.data(6, 4, 22)
    assert [list(one) for one in flow_count.own(ours + others + bytes(22), [1, 2, 3], 5)] == [[3], [1]]


def test_flow_result():
    sent = [n * MS for n in range(10)]
    arrived = [(0, 1), (1, 2), (3, 4), (2, 5), (2, 5), (9, 30), (77, 31)]
    found = flow_count.result([s for s, _ in arrived], [at * MS for _, at in arrived], sent, 40 * MS, 0)
    assert (found.sent, found.received, found.lost, found.duplicated, found.reordered, found.strange) == (
        10,
        5,
        5,
        1,
        1,
        1,
    )
    assert found.longest_gap_ms == 25 and found.gap_began_s == pytest.approx(0.005)
    assert found.sender_gap_ms == 31
    assert found.delay_max_ms == 21 and found.delay_p50_ms == 1
    assert found.lost_ranges == ((4, 8),)
    assert found.reordered_s == pytest.approx((0.005, 0.005))
    assert FlowResult.from_json(json.loads(json.dumps(found.to_json()))) == found


def network_gap_ms(arrived, sent=range(10), end=10):
    """``arrived``: (number, ms); numbers are sent at ``sent``."""
    seqs, at = zip(*arrived, strict=True)
    sent_ns = [ms * MS for ms in sent]
    return flow_count.result(seqs, [ms * MS for ms in at], sent_ns, end * MS, 0).network_gap_ms


def test_what_the_sender_paused_is_not_the_networks_gap():
    every = [(n, n) for n in range(10)]
    assert network_gap_ms(every) == 0
    assert network_gap_ms([(0, 0), (1, 100), (2, 101)], sent=[0, 99, 101], end=101) == 1
    # nine are lost while the sender goes on
    assert network_gap_ms([(0, 0), (10, 20)], sent=range(0, 22, 2), end=20) == 18
    # held up, and delivered all at once
    assert network_gap_ms([*every[:3], *((n, 9) for n in range(3, 10))]) == 6
    # none comes any more
    assert network_gap_ms(every[:4]) == 6
    # one comes twice, and late
    assert network_gap_ms([*every, (0, 50)]) == 0


def test_nothing_arrived():
    found = flow_count.result([], [], [0, MS], 2 * MS, 3)
    assert (found.lost, found.longest_gap_ms, found.delay_p50_ms, found.dropped_here) == (2, 0.0, None, 3)


ANSWERS = {
    flaps.COUNTERS: [{"peer": "10.1.0.1", "session-down": 1}],
    sessions.BFD: [{"peer": "10.1.0.1", "status": "up", "uptime": 60}],
    sessions.BGP: {
        "ipv4Unicast": {
            "peers": {"10.1.0.1": {"state": "Established", "peerUptimeMsec": 60_000, "connectionsDropped": 2}}
        }
    },
    flaps.NEIGHBOURS: {"neighbors": {"192.0.2.3": [{"nbrState": "Full/-", "upTimeInMsec": 60_123}]}},
    sessions.IPV4: {"routes": [{"type": "ebgp", "fib": 10_000}]},
    sessions.IPV6: {"routes": [{"type": "ebgp", "fib": 1000}]},
}


def look(at_s, **changed):
    return flaps.look({**ANSWERS, **changed}, at_s)


def test_sessions_that_stay_up_did_not_flap():
    first, then = look(0), look(3, **{sessions.BFD: [{"peer": "10.1.0.1", "status": "up", "uptime": 63}]})
    assert first.routes == 11_000
    assert flaps.flaps(first, then) == {"bfd": 0, "bgp": 0, "ospf": 0}


def test_counters_tell_of_sessions_that_came_back():
    again = {sessions.BFD: [{"peer": "10.1.0.1", "status": "up", "uptime": 0}]}
    counted = {flaps.COUNTERS: [{"peer": "10.1.0.1", "session-down": 3}]}
    assert flaps.flaps(look(0), look(3, **again, **counted))["bfd"] == 2


def test_sessions_that_are_gone_or_young_went_down():
    young = {flaps.NEIGHBOURS: {"neighbors": {"192.0.2.3": [{"nbrState": "Full/-", "upTimeInMsec": 900}]}}}
    idle = {
        sessions.BGP: {"ipv4Unicast": {"peers": {"10.1.0.1": {"state": "Idle", "connectionsDropped": 3}}}}
    }
    assert flaps.flaps(look(0), look(5, **young, **idle, **{sessions.BFD: []})) == {
        "bfd": 1,
        "bgp": 1,
        "ospf": 1,
    }


def test_a_session_that_was_down_before_is_not_counted():
    down = {sessions.BFD: [{"peer": "10.1.0.1", "status": "down"}]}
    assert flaps.flaps(look(0, **down), look(3, **down))["bfd"] == 0


RAWSTATS = """Job type: 3

downtime: 206
time_elapsed: 2365
memory_total: 202645504
memory_processed: 141557521
memory_constant: 15271
memory_normal: 34459
memory_iteration: 3
memory_page_size: 4096
"""


def test_libvirt_job():
    job = libvirt_job.parse(RAWSTATS)
    assert (job.downtime_ms, job.memory_bytes, job.passes) == (206, 141557521, 3)
    assert job.pages_again == 34459 + 15271 - 202645504 // 4096
    assert libvirt_job.parse("error: no domain") == libvirt_job.Job()
    assert libvirt_job.Job().pages_again is None


PROBE = {
    "sent": 600,
    "lost": 1,
    "duplicated": 0,
    "reordered": 0,
    "longest_gap_ms": 200.0,
    "latency_p50_ms": 1.0,
    "latency_p99_ms": 2.0,
    "guest_resent": 0,
    "guest_forgot": 0,
}


def row(run=0, moved=True, lost=0, after=3.0):
    sent = [n * MS for n in range(10)]
    seqs = range(10 - lost)
    data = flow_count.result(list(seqs), [sent[n] + MS for n in seqs], sent, 12 * MS, 0)
    later = look(after, **{sessions.BFD: [{"peer": "10.1.0.1", "status": "up", "uptime": 63}]})
    seen = Observed(data, PROBE, [look(0)] * 2, [later] * 2)
    over = Moved(150.0, 1500.0, libvirt_job.parse(RAWSTATS), {"lost": 0}) if moved else None
    return pisa_rows.measured(CASE, run, "a", seen, over)


def test_row():
    one = row(lost=2)
    assert (one.sent, one.lost, one.gap_ms, one.control_lost, one.flapped) == (10, 2, 4.0, 1, 0)
    assert (one.downtime_ms, one.total_ms, one.memory_mib, one.pages_again, one.passes) == (
        150.0,
        1500.0,
        135.0,
        256,
        3,
    )
    assert one.routes_before == one.routes_after == 11_000
    assert list(one.lost_ranges) == [(8, 9)] and "lost_ranges" not in row().to_json()
    assert row(moved=False).control and row(moved=False).downtime_ms is None


FLOWS = Case("openflow", 1000, 64)
TIMES = Times(0.002, 0.003, 0.0045, 1.2)


def flow_row(moved=True, gap=1, back_gap=1, lost=0, rows=(), case=FLOWS):
    """A packet a ms, but for ``gap`` ms in which none arrives."""

    def counted(gap):
        sent = [n * MS for n in range(100)]
        seqs = range(lost, 100)
        return flow_count.result(
            list(seqs), [max(sent[n], (50 + gap) * MS if n > 50 else 0) for n in seqs], sent, 200 * MS, 0
        )

    over = Rerouted(2, TIMES) if moved else None
    return pisa_flow_rows.measured(
        Step(case, 0, not moved), "s2", counted(gap), counted(back_gap), over, rows
    )


def test_flow_row():
    one = flow_row(lost=3)
    assert (one.sent, one.lost, one.back_sent, one.back_lost, one.flows, one.source) == (
        100, 3, 100, 3, 2, "s2",
    )  # fmt: skip
    assert (one.prepared_ms, one.cut_ms, one.total_ms, one.gone_ms) == (2.0, 3.0, 4.5, 1200.0)
    assert one.control_sent is None and one.routes_before is None and not one.control
    assert flow_row(moved=False).control and flow_row(moved=False).total_ms is None
    assert flow_row().to_json()["back_lost"] == 0 and "back_lost" not in row().to_json()
    kept = flow_row().to_json()
    assert pisa_rows.Row(**json.loads(json.dumps(kept))).to_json() == kept


def test_downtime_of_flows_is_what_a_gap_has_beyond_the_controls():
    usual = flow_row(moved=False, gap=6, back_gap=9)
    assert (usual.network_gap_ms, usual.back_network_gap_ms) == (5.0, 8.0)
    assert flow_row(gap=21, rows=[usual]).downtime_ms == 12.0
    assert flow_row(back_gap=21, rows=[usual]).downtime_ms == 12.0
    assert flow_row(gap=21, rows=[usual, replace(usual, network_gap_ms=30.0)]).downtime_ms == 0
    assert flow_row(gap=5, rows=[usual]).downtime_ms == 0
    other, failed = replace(usual, rate_pps=7), pisa_rows.failed(FLOWS, 0, True, "", "x")
    assert flow_row(gap=21, rows=[other, failed, flow_row()]).downtime_ms is None


def test_flow_rows_add_up_and_are_told():
    rows = [flow_row(lost=3), flow_row(), flow_row(moved=False)]
    found = pisa_rows.summarise(rows)
    assert [(e["runs"], e["lost_in_all"], e["back_lost_in_all"], e["lost_none"]) for e in found] == [
        (2, 3, 3, 1),
        (1, 0, 0, 1),
    ]
    assert found[0]["total_ms"]["median"] == 4.5 and found[0]["gone_ms"]["median"] == 1200
    said = pisa_output.describe(rows[0])
    assert "back 3 of 100 lost" in said and "total 4.5 ms, old path gone after 1200.0 ms" in said
    assert "old path" not in pisa_output.describe(rows[2])


def test_the_summary_says_on_which_days_rows_were_measured():
    days = [replace(row(n), gap_began_s=at) for n, at in enumerate((86_400.0 * 20_000, 86_400.0 * 20_001))]
    assert pisa_rows.summarise([*days, row(moved=False)])[0]["days"] == ["2024-10-04", "2024-10-05"]


def test_summary_keeps_controls_and_errors_apart():
    found = pisa_rows.summarise(
        [row(0, lost=4), row(1), pisa_rows.failed(CASE, 2, False, "", "x"), row(0, moved=False)]
    )
    assert [(e["control"], e["runs"], e["errors"], e["lost_in_all"], e["lost_none"]) for e in found] == [
        (False, 2, 1, 4, 1),
        (True, 1, 0, 0, 1),
    ]
    assert found[0]["sent_in_all"] == 20 and found[0]["routes_kept"] == 2
    assert found[1]["total_ms"] is None


def test_file_round_trip(tmp_path, capsys):
    file = tmp_path / "pisa.json"
    every = [row(), row(moved=False), pisa_rows.failed(CASE, 1, False, "a", "no route")]
    pisa_output.write(file, {"cpus": 2}, every)
    assert json.loads(file.read_text())["bench"] == "pisa"
    assert [one.case for one in pisa_output.read_rows(file)] == [CASE] * 3
    assert pisa_output.read_rows(file)[0] == every[0]
    assert pisa_output.read_rows(tmp_path / "none") == []
    assert pisa_output.read_machine(file) == {"cpus": 2} and pisa_output.read_machine(tmp_path / "none") == {}
    pisa_output.show(every)
    assert "separation control" in capsys.readouterr().out
    assert "no route" in pisa_output.describe(every[2])
    assert "downtime 150.0 ms" in pisa_output.describe(every[0])
    for wrong in ("{}", '{"bench": "vm", "rows": []}', '{"bench": "pisa", "rows": [{"x": 1}]}'):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match="is not a result of 'vmnet bench pisa'"):
            pisa_output.read_rows(file)


def shown(scheme, rate, control=False, **columns):
    return {"scheme": scheme, "rate_pps": rate, "size_bytes": 64, "control": control, **columns}


def test_points():
    rows = [
        shown("standard", 1000, lost=5),
        shown("standard", 100, lost=1),
        shown("standard", 100, lost=3),
        shown("standard", 100, True, lost=0),
        shown("standard", 10_000, True, lost=0),
        {**shown("standard", 100, lost=99), "error": "x"},
    ]
    found = pisa_data.points(rows, "standard", 64, "lost")
    assert [(p.rate_pps, p.middle, p.values, p.controls) for p in found] == [
        (100, 2, (1, 3), (0,)),
        (1000, 5, (5,), ()),
    ]


def test_what_the_paper_states():
    standard = [pisa_data.Point(100, (500.0, 600.0)), pisa_data.Point(1000, (700.0,))]
    assert [mark.at[0][1] for mark in pisa_data.stated("downtime_ms", standard, [100])] == [400.0, 5.0]
    assert [mark.at[0][1] for mark in pisa_data.stated("total_ms", standard, [100])] == [15_600.0, 5.0]
    assert pisa_data.stated("lost", [], [100, 1000])[0].at == ((100, 0.0), (1000, 0.0))
    assert [mark.at[0][1] for mark in pisa_data.stated("downtime_ms", [], [100])] == [5.0]
    assert pisa_data.expected_loss(standard).at == ((100, 55.0), (1000, 700.0))
    assert all("Pisa 2010 (text)" in mark.label for mark in pisa_data.stated("total_ms", standard, [100]))


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        row().to_json(),
        replace(row(), scheme="standard", lost=4000).to_json(),
        flow_row(rows=[flow_row(moved=False)]).to_json(),
        row(moved=False).to_json(),
    ]
    drawn = pisa_plots.draw_all(tmp_path, rows)
    assert [path.stem for path in drawn] == list(pisa_plots.FIGURES)
    assert all(path.stat().st_size > 1000 for path in drawn)
    assert pisa_plots.draw_all(tmp_path, [pisa_rows.failed(CASE, 0, False, "", "x").to_json()]) == []
