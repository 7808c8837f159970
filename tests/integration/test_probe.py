"""The whole meter against the real responder, over the loopback of a namespace of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
ROOT = Path(__file__).parents[2]
PROBE = [sys.executable, "-c", "from vmnet.cli.probe import probe; probe()"]
HELLO = "import sys; from vmnet.probe.control import Control; Control('127.0.0.1').hello(10)"


@pytest.fixture(scope="module")
def responder(tmp_path_factory):
    """A responder in a namespace; gives the command that enters it."""
    program = tmp_path_factory.mktemp("guest") / "responder"
    subprocess.run(
        ["gcc", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", program, ROOT / "guest/responder.c"],
        check=True,
    )
    name = f"vmnet-test-probe{os.getpid()}"
    enter = ["ip", "netns", "exec", name]
    subprocess.run(["ip", "netns", "add", name], check=True)
    process = None
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        process = subprocess.Popen([*enter, program], stdout=subprocess.DEVNULL)
        subprocess.run([*enter, sys.executable, "-c", HELLO], check=True, timeout=30, cwd=ROOT)
        yield enter
    finally:
        if process:
            process.kill()
            process.wait()
        subprocess.run(["ip", "netns", "del", name], check=True)


def probe(responder, *args, **kwargs):
    done = subprocess.run(
        [*responder, *PROBE, *args], capture_output=True, text=True, timeout=60, cwd=ROOT, **kwargs
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def result(text):
    return next(e for e in map(json.loads, text.splitlines()) if e["event"] == "result")


@pytest.mark.parametrize(("target", "rate"), [("127.0.0.1", 100), ("127.0.0.1", 10_000), ("::1", 1000)])
def test_nothing_is_lost_on_a_quiet_path(responder, target, rate):
    found = result(probe(responder, target, "--rate", str(rate), "--duration", "1", "--json"))
    assert (found["lost"], found["duplicated"], found["reordered"], found["dropped_here"]) == (0, 0, 0, 0)
    for direction in ("out", "back"):
        assert found[direction]["sent"] == pytest.approx(rate, rel=0.2)
    assert found["latency_p50_ms"] < 50


def pid_of(responder):
    pid = subprocess.run(["ip", "netns", "pids", responder[-1]], capture_output=True, text=True, check=True)
    return next(int(p) for p in pid.stdout.split() if Path(f"/proc/{p}/comm").read_text() == "responder\n")


def pause(responder, seconds):
    stopped = pid_of(responder)
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(stopped, signal.SIGCONT)


def test_what_the_guest_itself_drops_is_told_apart(responder):
    """It does not read for longer than its socket has room."""
    meter = subprocess.Popen(
        [*responder, *PROBE, "127.0.0.1", "--rate", "100000", "--duration", "2.5", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert meter.stdout is not None
    assert json.loads(meter.stdout.readline())["event"] == "started"
    pause(responder, 1.5)
    found = result(meter.communicate(timeout=60)[0])
    assert found["guest_dropped"] > 0
    assert found["out"]["lost"] == found["guest_dropped"]


def test_a_pause_of_the_guest_shows_as_the_gap(responder):
    """The responder is stopped for 300 ms: nothing is lost, both directions are silent so long, and no burst follows."""
    meter = subprocess.Popen(
        [*responder, *PROBE, "127.0.0.1", "--duration", "2", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert meter.stdout is not None
    assert json.loads(meter.stdout.readline())["event"] == "started"
    time.sleep(0.5)
    pause(responder, 0.3)
    found = result(meter.communicate(timeout=60)[0])
    assert found["lost"] == 0
    for direction in ("out", "back"):
        assert 290 < found[direction]["longest_gap_ms"] < 600
    assert found["out"]["sent"] - found["back"]["sent"] > 250


def test_packets_dropped_on_the_way_are_counted_one_by_one(responder):
    rules = (
        "add table ip t; add chain ip t c { type filter hook input priority 0; }; "
        "add rule ip t c udp dport 7007 udp length 30 numgen inc mod 10 0 drop"
    )
    subprocess.run([*responder, "nft", rules], check=True)
    try:
        found = result(probe(responder, "127.0.0.1", "--duration", "1", "--json"))
    finally:
        subprocess.run([*responder, "nft", "delete table ip t"], check=True)
    lost = found["out"]["lost"]
    assert lost == pytest.approx(found["out"]["sent"] / 10, rel=0.1)
    assert sum(last - first + 1 for first, last in found["out"]["missing"]) == lost
    assert len(found["out"]["missing_sent"]) == len(found["out"]["missing"])
    assert all(abs(time.time() - sent) < 60 for pair in found["out"]["missing_sent"] for sent in pair)
    assert found["back"]["lost"] == 0


def test_interrupting_still_gives_the_result(responder):
    meter = subprocess.Popen(
        [*responder, *PROBE, "127.0.0.1", "--duration", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert meter.stdout is not None
    assert json.loads(meter.stdout.readline())["event"] == "started"
    meter.terminate()
    assert result(meter.communicate(timeout=30)[0])["lost"] == 0


def test_a_guest_that_has_stopped_answering_is_an_error_that_says_since_when(responder):
    argv = [*responder, *PROBE, "127.0.0.1", "--duration", "0", "--json"]
    meter = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert meter.stdout is not None
    assert json.loads(meter.stdout.readline())["event"] == "started"
    stopped = pid_of(responder)
    os.kill(stopped, signal.SIGSTOP)
    try:
        meter.terminate()
        _out, complaint = meter.communicate(timeout=30)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert "no REPORT from the responder" in complaint
    assert re.search(r"the last packet of its stream came [5-9]\.\d s ago", complaint), complaint


def test_events_file_has_every_packet(responder, tmp_path):
    file = tmp_path / "events"
    probe(responder, "127.0.0.1", "--duration", "0.5", "--events", str(file))
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [e["event"] for e in events] == ["started", "stopped", "timeline", "result"]
    assert len(events[2]["out_us"]) == events[3]["out"]["sent"]
    assert len(events[2]["back_seq"]) == events[3]["back"]["received"]


@pytest.mark.parametrize("mode", ["tcp-send", "tcp-receive"])
def test_tcp_bytes_and_checksum_agree(responder, mode):
    found = result(probe(responder, "::1", "--mode", mode, "--duration", "1", "--json"))
    assert found["ok"] and found["bytes"] > 1_000_000


def test_ping(responder):
    found = result(probe(responder, "127.0.0.1", "--mode", "ping", "--duration", "0.5", "--json"))
    assert found["lost"] == 0 and 40 <= found["sent"] <= 51


def test_dirtying_comes_and_goes(responder):
    assert (
        result(probe(responder, "127.0.0.1", "--duration", "0.5", "--dirty", "8:1000", "--json"))["lost"] == 0
    )


def test_no_responder_is_an_error_that_says_so(responder):
    done = subprocess.run(
        [
            *responder,
            sys.executable,
            "-c",
            "from vmnet.probe.control import Control; Control('127.0.0.1', 9).hello(0.3)",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert "no HELLO_ACK from the responder at 127.0.0.1 port 9 within 0.3 s" in done.stderr
