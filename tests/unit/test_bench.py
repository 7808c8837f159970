"""The bench's order of runs, its rows and summary, and what it reads from QEMU's events."""

import json
import subprocess
import sys

import pytest

from vmnet.bench import output, qemu_events, rows, schemes, switchover, verdicts
from vmnet.bench.child import PIPES, Child
from vmnet.bench.rows import Case
from vmnet.bench.vm import Settings, remaining, steps
from vmnet.errors import ConfigError, UnavailableError, WaitTimeoutError
from vmnet.lab import schema
from vmnet.lab.namespace_host import NamespaceHost
from vmnet.lab.paths import LabPaths, check_name

CASE = Case("vmnet", 1000, 64, "idle")
COLUMNS = "scheme rate_pps size_bytes run guest sent lost duplicated reordered longest_gap_ms compute_downtime_ms total_ms"


def direction(**changed):
    return {"lost": 0, "duplicated": 0, "reordered": 0, "longest_gap_ms": 1.0, **changed}


def found(**changed):
    return {
        "sent": 10,
        "lost": 0,
        "duplicated": 0,
        "reordered": 0,
        "longest_gap_ms": 100.0,
        "latency_p50_ms": 1.0,
        "latency_p99_ms": 2.0,
        "dropped_here": 0,
        "guest_resent": 0,
        "guest_forgot": 0,
        "guest_dropped": 0,
        "unresolved": 0,
        "seconds": 4.0,
        "out": direction(),
        "back": direction(),
        **changed,
    }


OVER = switchover.Switchover(1000.0, 1000.09)


def migration(run=0, **changed):
    return rows.measured(CASE, run, found(**changed), source="a", over=OVER, total_ms=2000.0)


def test_schemes_take_turns_run_by_run_and_controls_come_after():
    settings = Settings(["x", "y"], [100], ["idle"], runs=2, controls=1)
    assert [(s.case.scheme, s.run, s.control) for s in steps(settings)] == [
        ("x", 0, False),
        ("y", 0, False),
        ("y", 1, False),
        ("x", 1, False),
        ("x", 0, True),
        ("y", 0, True),
    ]


def test_a_resumed_bench_does_only_what_has_no_good_row():
    settings = Settings(["vmnet"], [1000], ["idle"], runs=2, controls=0)
    bad = rows.failed(CASE, 1, False, "a", "no route")
    assert [step.run for step in remaining(settings, [migration(0), bad])] == [1]


def test_row_has_the_columns_in_order():
    text = list(migration().to_json())
    assert [name for name in text if name in COLUMNS.split()] == COLUMNS.split()
    assert "error" not in text and "control" in text


def test_gap_minus_downtime():
    assert migration().gap_minus_downtime_ms == 10.0
    control = rows.measured(CASE, 0, found(), source="a")
    assert control.control and control.gap_minus_downtime_ms is None


def test_summary_keeps_controls_and_errors_apart():
    control = rows.measured(CASE, 0, found(lost=3), source="a")
    summary = rows.summarise(
        [migration(0, lost=4), migration(1, lost=8), rows.failed(CASE, 2, False, "", "x"), control]
    )
    assert [(e["control"], e["runs"], e["errors"], e["lost"]["median"]) for e in summary] == [
        (False, 2, 1, 6),
        (True, 1, 0, 3),
    ]
    assert summary[1]["total_ms"] is None


def test_spread():
    assert rows.spread([3, 1, 2, 5, 4]) == {"median": 3, "min": 1, "q1": 2, "q3": 4, "max": 5}
    assert rows.spread([]) is None


def test_file_round_trip(tmp_path):
    file = tmp_path / "bench.json"
    every = [migration(), rows.failed(CASE, 1, False, "a", "no route")]
    output.write(file, {"cpus": 2}, every)
    assert json.loads(file.read_text())["bench"] == "vm"
    assert output.read_rows(file) == every
    assert output.read_rows(tmp_path / "none") == []
    file.write_text("{}")
    with pytest.raises(ConfigError, match="is not a result of 'vmnet bench vm'"):
        output.read_rows(file)


def event(name, t, vm="vm1"):
    return {"vm": vm, "event": name, "t": t}


def test_switchover_is_the_last_stop_before_the_first_resume():
    source = [event("STOP", 1), event("STOP", 5), event("STOP", 5.1, "other"), event("STOP", 9)]
    over = switchover.find("vm1", source, [event("RESUME", 2), event("RESUME", 5.25)], since=3)
    assert over == switchover.Switchover(5, 5.25)
    assert over.downtime_ms == pytest.approx(250)


def test_no_switchover_without_both_events():
    assert switchover.find("vm1", [event("STOP", 5)], [], 0) is None
    assert switchover.find("vm1", [event("STOP", 5)], [event("RESUME", 4)], 0) is None


def test_timeline_events_are_ordered():
    over = switchover.Switchover(5, 6)
    source = [event("MIGRATION_PASS", 4), event("MIGRATION_PASS", 5.5)]
    own = [{"event": "divert", "t": 4.9}, {"event": "state", "t": 1}, {"result": {}}]
    found = switchover.timeline_events("vm1", source, over, 0, own)
    assert [(e["event"], e["t"]) for e in found] == [("pass", 4), ("divert", 4.9), ("stop", 5), ("resume", 6)]


def test_qemu_event_line():
    line = json.loads(qemu_events.line("vm1", "MIGRATION_PASS", 10, 500_000, '{"pass": 2}'))
    assert line == {"vm": "vm1", "event": "MIGRATION_PASS", "t": 10.5, "data": {"pass": 2}}
    assert json.loads(qemu_events.line("vm1", "STOP", 1, 0, None))["data"] is None


def test_virsh_names_the_migration_uri():
    topology = schema.parse(schema.load_document(schema.find("pair-ovs")[1]))
    a, b = (NamespaceHost(LabPaths("x"), host) for host in topology.hosts)
    assert schemes.find(["libvirt-ovs"])[0].argv("vm1", a, b)[-3:] == [
        "vm1",
        "qemu+tcp://10.0.0.2/system",
        "tcp://10.0.0.2",
    ]
    with pytest.raises(ConfigError, match="no scheme 'x'"):
        schemes.find(["x"])


def test_schemes_share_a_lab_if_topology_and_vmnet_are_the_same():
    labs = {}
    for one in schemes.SCHEMES.values():
        labs.setdefault(one.lab, set()).add((one.topology, one.managed))
        assert schema.find(one.topology)
        assert check_name(f"bench-{one.lab}")
    assert all(len(shared) == 1 for shared in labs.values())
    assert schemes.SCHEMES["vmnet"].lab == schemes.SCHEMES["vmnet-virsh"].lab
    assert schemes.SCHEMES["vmnet"].lab != schemes.SCHEMES["libvirt-bridge"].lab


def child(code):
    return Child("the child", subprocess.Popen([sys.executable, "-c", code], **PIPES))


def test_child_lines_and_noise():
    with child("print('hello'); print('{\"a\": 1}', flush=True); input()") as it:
        assert it.expect("a", lambda line: "a" in line, 10) == {"a": 1}
        with pytest.raises(WaitTimeoutError, match=r"no b from the child within 0\.1 s"):
            it.expect("b", lambda line: "b" in line, 0.1)
    assert it.last_noise() == "hello"
    assert it.process.returncode is not None


def test_child_that_ends_says_why():
    with (
        child("raise SystemExit('no luck')") as it,
        pytest.raises(UnavailableError, match="the child ended: no luck"),
    ):
        it.expect("a", lambda line: True, 10)


def test_a_row_says_when_what_was_lost_had_been_sent():
    out = {**direction(), "lost": 3, "missing_sent": [(1000.0051, 1000.0152), (1002.0, 1002.0)]}
    row = migration(out=out)
    assert row.lost_out_sent_ms == ((5.1, 15.2), (2000.0, 2000.0))
    assert "lost_out_sent_ms" in row.to_json() and "lost_out_sent_ms" not in migration().to_json()


def past(name="vm1", role="source", started=1000.0, verdict=None):
    return {"name": name, "role": role, "started": started, "verdict": verdict or {"lost": 0}}


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], None),
        ([past(started=900.0)], None),
        ([past(role="destination")], None),
        ([past(name="vm2")], None),
        ([{**past(), "verdict": None}], None),
        ([past(started=1010.0, verdict={"lost": 2}), past()], {"lost": 2}),
        ([past(started=998.0)], {"lost": 0}),
    ],
)
def test_the_verdict_that_the_daemon_kept(history, expected):
    assert verdicts.of_status({"history": history}, "vm1", 1001.0) == expected
