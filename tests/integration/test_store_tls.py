"""An ``ssl:`` remote: who has our CA's certificate gets in, who has not does not."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmnet.errors import ConfigError, UnavailableError, WaitTimeoutError
from vmnet.store import JournalEntry, Store, StoreSettings, process, schema


def openssl(directory: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)


def pki(directory: Path, name: str) -> None:
    """``NAME-ca.pem`` and a host's certificate of it."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    ca, host = f"{name}-ca", f"{name}-host"
    openssl(
        *(directory, "req", "-x509", *curve, "-subj", "/CN=ca"),
        *("-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-addext", "keyUsage=critical,keyCertSign"),
    )
    openssl(directory, "req", *curve, "-subj", "/CN=host", "-keyout", f"{host}.key", "-out", f"{host}.csr")
    openssl(
        *(directory, "x509", "-req", "-in", f"{host}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key"),
        *("-CAcreateserial", "-days", "2", "-out", f"{host}.pem"),
    )


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[str]:
    pki(tmp_path, "ours")
    pki(tmp_path, "other")
    subprocess.run(["ovsdb-tool", "create", tmp_path / "db", schema.PATH], check=True)
    log = tmp_path / "log"
    server = subprocess.Popen(
        [
            *("ovsdb-server", "-vsyslog:off", "-vconsole:off", "--no-chdir", f"--log-file={log}"),
            *(
                f"--unixctl={tmp_path / 'ctl'}",
                "--remote=pssl:0:127.0.0.1",
                f"--remote=punix:{tmp_path / 's'}",
            ),
            *(f"--private-key={tmp_path / 'ours-host.key'}", f"--certificate={tmp_path / 'ours-host.pem'}"),
            *(f"--ca-cert={tmp_path / 'ours-ca.pem'}", tmp_path / "db"),
        ],
        preexec_fn=process.dies_with(os.getpid()),
    )
    try:
        yield f"ssl:127.0.0.1:{port(server.pid, tmp_path)}"
    finally:
        server.kill()
        server.wait()


def port(pid: int, tmp_path: Path) -> int:
    """The port that the kernel chose, once the server serves its unix socket too."""
    import psutil

    store = StoreSettings("probe", tmp_path, remotes=(f"unix:{tmp_path / 's'}",))
    asyncio.run(open_and_close(store))
    return next(c.laddr.port for c in psutil.Process(pid).net_connections("tcp") if c.status == "LISTEN")


async def open_and_close(settings: StoreSettings) -> None:
    await (await Store.open(settings)).close()


def settings(tmp_path: Path, remote: str, name: str) -> StoreSettings:
    return StoreSettings(
        *("a", tmp_path, tmp_path, (remote,)),
        tls_ca=tmp_path / "ours-ca.pem",
        tls_certificate=tmp_path / f"{name}-host.pem",
        tls_key=tmp_path / f"{name}-host.key",
        timeout_s=5.0 if name == "ours" else 0.5,
    )


def test_our_certificate_opens_the_store(tmp_path: Path, remote: str) -> None:
    async def test() -> None:
        async with await Store.open(settings(tmp_path, remote, "ours")) as store:
            await store.journal_plan("m", [JournalEntry(0, {})])
            assert len(await store.journal("m")) == 1

    asyncio.run(test())


def test_another_cas_certificate_does_not(tmp_path: Path, remote: str) -> None:
    with pytest.raises(WaitTimeoutError, match="no connection to the store at ssl:127"):
        asyncio.run(open_and_close(settings(tmp_path, remote, "other")))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"no TLS file .*ours-ca\.pem"):
        asyncio.run(open_and_close(settings(tmp_path, "ssl:127.0.0.1:1", "ours")))
    with pytest.raises(ConfigError):
        StoreSettings("a", remotes=("ssl:127.0.0.1:1",))
