"""``vmnet flows`` over real Open vSwitches: what they do, which way packets take, and another way for them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from dataplane_kit import isolated
from ovs_kit import Fabric, folder

from vmnet.cli.flows import flows
from vmnet.errors import NotFoundError, RefusedError, UnavailableError, VmnetError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="no Open vSwitch here"),
]


class Scene:
    """Two flows from the client over s2: one for each of two servers' addresses, by the port they come in at."""

    def __init__(self) -> None:
        self.fabric = Fabric()
        for hop in self.fabric.path("client", "s1", "s2", "s4", "server"):
            for last in (1, 2):
                self.fabric.switches[hop.switch].ofctl(
                    "add-flow",
                    f"cookie=8,priority=100,in_port={hop.in_port},dl_dst=02:00:00:00:00:0{last},actions=output:{hop.out_port}",
                )
        links = [
            f"{one}:{other} {other}:{one}"
            for one, other in (("s1", "s2"), ("s1", "s3"), ("s2", "s4"), ("s3", "s4"))
        ]
        switches = "".join(f'{name} = "{one.address}"\n' for name, one in self.fabric.switches.items())
        self.file = Path(folder()) / "fabric.toml"
        self.file.write_text(f"links = {json.dumps(links)}\n[switches]\n{switches}")

    def run(self, *words: str) -> str:
        done = CliRunner().invoke(flows, [words[0], "--fabric", str(self.file), *words[1:]])
        if done.exception is not None and isinstance(done.exception, VmnetError):
            raise done.exception
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    def paths(self) -> dict[str, str]:
        said = self.run("path", "s1:client")
        return dict(line.split(": ", 1) for line in said.splitlines())


ONE, OTHER = (f"in_port=3,eth_dst=02:00:00:00:00:0{last}" for last in (1, 2))
OVER_S2, OVER_S3 = (f"s1:client - s1 - {way} - s4 - s4:server" for way in ("s2", "s3"))


@isolated()
def test_one_flow_moves_and_the_other_stays() -> None:
    scene = Scene()
    assert scene.paths() == {ONE: OVER_S2, OTHER: OVER_S2}
    words = ("migrate", "s1:client", "eth_dst=02:00:00:00:00:01", "--via", "s3")
    assert scene.run(*words, "--dry-run") == "would move 1 flow: s1 - s2 - s4 -> s1 - s3 - s4\n"
    assert scene.paths() == {ONE: OVER_S2, OTHER: OVER_S2}
    assert scene.run(*words) == "moved 1 flow: s1 - s2 - s4 -> s1 - s3 - s4\n"
    assert scene.paths() == {ONE: OVER_S3, OTHER: OVER_S2}
    assert [len(scene.fabric.switches[name].dump()) for name in ("s1", "s2", "s3", "s4")] == [2, 1, 1, 2]


@isolated()
def test_a_switch_is_emptied() -> None:
    scene = Scene()
    said = json.loads(scene.run("migrate", "--avoid", "s2", "--json"))
    assert said == {"flows": 2, "from": ["s1", "s2", "s4"], "to": ["s1", "s3", "s4"], "moved": True}
    assert scene.paths() == {ONE: OVER_S3, OTHER: OVER_S3}
    assert scene.fabric.switches["s2"].dump() == []
    assert "nothing moves" in scene.run("migrate", "--avoid", "s2")


@isolated()
def test_it_shows_what_there_is() -> None:
    scene = Scene()
    lines = scene.run("show", "s1").splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("s1  priority=100,in_port=3,eth_dst=02:00:00:00:00:01 cookie=0x8 -> output:s2")
    found = [json.loads(line) for line in scene.run("show", "--json").splitlines()]
    assert {one["switch"] for one in found} == {"s1", "s2", "s4"}
    assert "no entry for it" in scene.run("path", "s1:client", "eth_dst=02:00:00:00:00:09")


@isolated()
def test_what_cannot_be_leaves_everything_as_it_was() -> None:
    scene = Scene()
    before = {name: one.dump() for name, one in scene.fabric.switches.items()}
    with pytest.raises(NotFoundError, match="no path from s1 to s4 without s2, s3"):
        scene.run("migrate", "--avoid", "s2", "--avoid", "s3")
    with pytest.raises(NotFoundError, match="no switch 's9'"):
        scene.run("migrate", "--via", "s9")
    assert {name: one.dump() for name, one in scene.fabric.switches.items()} == before
    scene.fabric.switches["s3"].kill()
    with pytest.raises(UnavailableError, match="s3: no switch at unix:"):
        scene.run("show")


@isolated()
def test_an_entry_that_others_use_is_not_taken_from_them() -> None:
    scene = Scene()
    for name in ("s2", "s4"):
        switch = scene.fabric.switches[name]
        switch.ofctl("del-flows")
        out = scene.fabric.path("client", "s1", "s2", "s4", "server")[1 if name == "s2" else 2].out_port
        switch.ofctl("add-flow", f"priority=100,dl_dst=02:00:00:00:00:01,actions=output:{out}")
    from dataplane_kit import Host, veth

    veth(Host(), "far", scene.fabric.switches["s2"].host, "other")
    scene.fabric.switches["s2"].add_port("other")
    with pytest.raises(RefusedError, match="an entry of s2 also carries flows from port 3 of s2"):
        scene.run("migrate", "s1:client", "--via", "s3")
