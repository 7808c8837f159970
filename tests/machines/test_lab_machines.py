"""What `vmnet lab` promises of a machine: commands, signals, clocks, sockets, a reboot. One lab for all."""

import json
import signal
import subprocess
import time

import pytest

from vmnet.control import ControlClient
from vmnet.errors import LabError
from vmnet.lab import lab_up, status
from vmnet.lab.machines import clock
from vmnet.lab.wait import wait_for

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def lab(request):
    request.getfixturevalue("debian12_once")
    with lab_up("machines", "machines-test", vms=False) as made:
        yield made


def test_code_input_and_output(lab):
    a = lab.host("a")
    done = a.run(["sh", "-c", "read line; echo out $line; echo err >&2; exit 7"], text="x y\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out x y\n", "err\n")
    with pytest.raises(LabError, match="on a: 'false' failed with code 1"):
        a.run(["false"])


def test_a_command_ends_with_its_client(lab):
    a = lab.host("a")
    with a.popen(["sh", "-c", "echo $$; sleep 1000"], stdout=subprocess.PIPE, text=True) as process:
        pid = process.stdout.readline().strip()
        assert a.run(["test", "-d", f"/proc/{pid}"], check=False).returncode == 0
        process.kill()
    wait_for(
        "the command to end", lambda: a.run(["test", "-d", f"/proc/{pid}"], check=False).returncode, 30, 0.5
    )


def test_an_interrupted_client_ends_its_command(lab):
    a = lab.host("a")
    with a.popen(["sh", "-c", "echo up; sleep 1000"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    wait_for("no sleep to run", lambda: a.run(["pgrep", "-x", "sleep"], check=False).returncode, 30, 0.5)


def test_it_is_a_stock_debian(lab):
    a, b = lab.hosts
    script = "cat /etc/debian_version; systemctl is-active vmnet-dom0d; cat /sys/module/apparmor/parameters/enabled; ls /dev/kvm"
    version, unit, apparmor, kvm = a.run(["sh", "-c", script]).stdout.split()
    assert version.startswith("12.") and (unit, apparmor, kvm) == ("active", "Y", "/dev/kvm")
    uuids = {h.run(["sh", "-c", "virsh capabilities | grep -m1 uuid"]).stdout for h in (a, b)}
    assert len(uuids) == 2


def test_hosts_reach_each_others_libvirt_and_daemon(lab):
    a, b = lab.hosts
    a.run(["virsh", "-c", b.libvirt_uri, "list"])
    assert a.ping()["host"] == "a"
    checks = ControlClient(b.daemon_socket).request("doctor")["checks"]
    assert all(check["ok"] for check in checks), json.dumps(checks)


def test_clock_after_standing_still(lab):
    a = lab.host("a")
    a.freeze()
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(a.argv(["true"]), timeout=3)
    a.thaw()
    before = time.time()
    theirs = float(a.run(["date", "+%s.%N"]).stdout)
    assert before - 0.5 < theirs < time.time() + 0.5
    clock.set_clock(a)


def test_a_reboot_keeps_name_networks_and_daemon(lab):
    b = lab.host("b")
    boot = b.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    b.run(["systemctl", "reboot"], check=False)

    def again():
        try:
            b.connect(30)
            return b.run(["cat", "/proc/sys/kernel/random/boot_id"], check=False).stdout not in ("", boot)
        except LabError:
            return False

    wait_for("machine b to boot again", again, 900, 2)
    assert b.run(["hostname"]).stdout == "b\n"
    assert "10.0.0.2/24" in b.run(["ip", "-br", "address", "show", "br0"]).stdout
    b.wait_daemon()
    assert status.dead_parts(lab) == []


def test_the_controller_is_a_service_without_capabilities(lab):
    """As docs/openflow.md says; on a host, where vmnet is installed already."""
    b = lab.host("b")
    settings = 'listen = ["tcp:127.0.0.1:6653"]\nplain = true\n'
    b.run(["sh", "-c", "cat > /etc/vmnet/controller.toml"], text=settings)
    b.run(["cp", "/opt/vmnet/scripts/vmnet-controllerd.service", "/etc/systemd/system/"])
    b.run(["systemctl", "daemon-reload"], timeout=90)
    b.run(["systemctl", "start", "vmnet-controllerd"], timeout=120)
    said = json.loads(b.run(["vmnet", "controller", "status", "--json"], timeout=60).stdout)
    assert said["switches"] == {}
    status = b.run(["sh", "-c", "cat /proc/$(systemctl show -P MainPID vmnet-controllerd)/status"]).stdout
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    b.run(["systemctl", "reload", "vmnet-controllerd"], timeout=60)
    b.run(["systemctl", "stop", "vmnet-dom0d"], timeout=90)
    b.run(["vmnet", "controller", "status"], timeout=60)
    b.run(["systemctl", "start", "vmnet-dom0d"], timeout=120)
    b.run(["systemctl", "stop", "vmnet-controllerd"], timeout=60)
    assert b.run(["systemctl", "is-failed", "vmnet-controllerd"], check=False).stdout.strip() == "inactive"
