"""Revoked and renewed certificates, while connections are there: real TLS over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vmnet import pki, pki_revoked
from vmnet.cli.pki import pki as command
from vmnet.config import Config, parse
from vmnet.errors import ConfigError, NotFoundError, PeerError
from vmnet.peer import PeerClient, PeerServer, identity
from vmnet.peer.credentials import Credentials

IP = {"a": "127.0.0.1", "b": "127.0.0.2", "c": "127.0.0.3"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Of a CA and three hosts."""
    pki.init(tmp_path)
    for name in IP:
        pki.host(name, tmp_path)
    return tmp_path


@pytest.fixture
def port() -> int:
    while True:
        number = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError):
            socket.create_server(("", number)).close()
            return number


def config(me: str, port: int, keys: Path) -> Config:
    own = keys / me
    tls = f"ca = '{own}/ca.pem'\ncertificate = '{own}/host.pem'\nkey = '{own}/host.key'\ncrl = '{own}/crl.pem'\n"
    others = "".join(f"[peers.{p}]\naddress = '{IP[p]}'\nport = {port}\n" for p in IP if p != me)
    return parse(
        f"[host]\nname = '{me}'\n[listen]\naddress = '{IP[me]}'\nport = {port}\n{others}[tls]\n{tls}", "test"
    )


class Hosts:
    """b serves; a and c ask."""

    def __init__(self, port: int, keys: Path) -> None:
        self.keys = keys
        self.migrates, self.now_s = False, time.time()
        self.server = PeerServer()
        self.config = config("b", port, keys)
        self.clients = {name: PeerClient(config(name, port, keys), "b") for name in "ac"}

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Hosts]:
        async def handler(peer: str, op: str, payload: dict[str, Any]) -> dict[str, Any]:
            return {"from": peer}

        await self.server.start(self.config, handler)
        assert self.server.tls is not None
        self.credentials = Credentials(
            self.config.tls, [self.server.tls], self.server.end, lambda: self.migrates, lambda: self.now_s
        )
        try:
            yield self
        finally:
            self.credentials.close()
            for one in self.clients.values():
                await one.close()
            await self.server.stop()

    async def ask(self, name: str) -> str:
        return str((await self.clients[name].request("x", {}, 5))["from"])

    def revoke(self, name: str, *at: str) -> None:
        path = pki_revoked.revoke(name, self.keys)
        for host in at:
            shutil.copy(path, self.keys / host / "crl.pem")


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def test_a_revoked_peer_is_thrown_out_and_stays_out(keys: Path, port: int) -> None:
    async def test() -> None:
        async with Hosts(port, keys).run() as hosts:
            assert await hosts.ask("a") == "a" and await hosts.ask("c") == "c"
            hosts.revoke("c", "b")
            await hosts.credentials.read()
            with pytest.raises(PeerError, match=r"lost the connection|revoked"):
                await hosts.ask("c")
            with pytest.raises(PeerError, match=r"revoked|hung up"):
                await hosts.ask("c")
            assert await hosts.ask("a") == "a"
            hosts.revoke("a", "b")  # a later list counts, the earlier entries with it
            await hosts.credentials.read()
            for name in "ac":
                with pytest.raises(PeerError):
                    await hosts.ask(name)
                with pytest.raises(PeerError, match=r"revoked|hung up"):
                    await hosts.ask(name)

    run(test())


def test_the_asking_end_looks_as_well(keys: Path, port: int) -> None:
    async def test() -> None:
        async with Hosts(port, keys).run() as hosts:
            await hosts.ask("a")
            hosts.revoke("b", "a")
            revoked = pki_revoked.serials(keys / "a" / "crl.pem", keys / "ca.pem")
            hosts.clients["a"].end(identity.Barred(revoked, 0.0))
            with pytest.raises(PeerError, match="revoked"):
                await hosts.ask("a")
            await hosts.ask("c")

    run(test())


def test_a_connection_ends_with_its_certificate_but_not_in_a_migration(
    keys: Path, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        ends = pki.load_certificate(keys / "a" / "host.pem").not_valid_after_utc.timestamp()
        async with Hosts(port, keys).run() as hosts:
            await hosts.ask("a")
            hosts.now_s = ends - 1
            hosts.credentials.end()
            hosts.migrates, hosts.now_s = True, ends + 1
            hosts.credentials.end()
            await hosts.ask("a")
            assert "closed" not in caplog.text
            hosts.migrates = False
            hosts.credentials.end()
            with pytest.raises(PeerError, match="lost the connection"):
                await hosts.ask("a")
            assert "its certificate has expired" in caplog.text
            await hosts.ask("c")
            hosts.clients["c"].end(identity.Barred(frozenset(), ends + 1))
            link = hosts.clients["c"]._link
            assert link is not None and not link.alive
            assert "the connection to peer b is closed: its certificate has expired" in caplog.text

    run(test())


def test_a_renewed_certificate_is_shown_without_a_restart(keys: Path, port: int) -> None:
    async def test() -> None:
        async with Hosts(port, keys).run() as hosts:
            await hosts.ask("a")
            old = pki.load_certificate(keys / "b" / "host.pem").serial_number
            pki.host("b", keys, force=True)
            hosts.revoke("b")  # the new one, and not where a looks
            await hosts.credentials.read()
            await hosts.ask("a")  # its connection goes on
            await hosts.clients["a"].close()
            await hosts.ask("a")
            link = hosts.clients["a"]._link
            assert link is not None
            new = pki.load_certificate(keys / "b" / "host.pem").serial_number
            assert link.tls is not None
            shown = (link.tls.getpeercert() or {})["serialNumber"]
            assert int(str(shown), 16) == new != old

    run(test())


def test_files_that_do_not_fit_change_nothing(
    keys: Path, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with Hosts(port, keys).run() as hosts:
            await hosts.ask("a")
            shutil.copy(keys / "c" / "host.key", keys / "b" / "host.key")
            with pytest.raises(ConfigError, match=r"cannot be used"):
                await hosts.credentials.read()
            (keys / "b" / "crl.pem").write_text("damaged")
            with caplog.at_level(logging.ERROR):
                hosts.credentials.look()
                assert hosts.credentials._reading is not None
                await hosts.credentials._reading
            assert (
                "the certificates in use stay" in caplog.text
                and "is no list of revoked certificates" in caplog.text
            )
            hosts.credentials._reading = None
            hosts.credentials.look()  # nothing has changed since: not said again
            assert hosts.credentials._reading is None
            await hosts.clients["a"].close()
            await hosts.ask("a")

    run(test())


def test_a_list_of_another_ca_or_a_damaged_one_is_refused(keys: Path) -> None:
    ca = pki.load_certificate(keys / "ca.pem")
    other = keys / "other"
    pki.init(other)
    pki.host("x", other)
    with pytest.raises(ConfigError, match="is not of the CA in use"):
        pki_revoked.read(pki_revoked.revoke("x", other), ca)
    good = pki_revoked.revoke("a", keys)
    assert len(pki_revoked.serials(good, keys / "ca.pem")) == 1
    text = good.read_bytes()
    refused = 0
    for at in range(30, len(text) - 30, 7):
        good.write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
        try:
            found = pki_revoked.read(good, ca)
        except ConfigError:
            refused += 1
            continue
        assert {one.serial_number for one in found} == {
            pki.load_certificate(keys / "a" / "host.pem").serial_number
        }
    assert refused > 10


def test_revoking_twice_adds_nothing_and_keeps_the_others(keys: Path) -> None:
    pki.switch("s1", keys)
    for name in ("a", "s1", "a"):
        path = pki_revoked.revoke(name, keys)
    found = pki_revoked.serials(path, keys / "ca.pem")
    files = (keys / "a" / "host.pem", keys / "s1" / "switch.pem")
    assert found == {pki.load_certificate(file).serial_number for file in files}
    with pytest.raises(NotFoundError, match="nobody has no certificate"):
        pki_revoked.revoke("nobody", keys)


def test_the_command_says_what_is_next(keys: Path) -> None:
    said = CliRunner().invoke(command, ["revoke", "b", str(keys)])
    assert said.exit_code == 0 and "copy it to /etc/vmnet/pki/ on every host" in said.output


def test_openssl_itself_reads_the_list(keys: Path) -> None:
    shutil.copy(pki_revoked.revoke("b", keys), keys / "a" / "crl.pem")
    context = identity.server_context(config("a", 1, keys).tls)
    assert context is not None and context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    assert context.cert_store_stats()["crl"] == 1
